"""A plain word when memory is not enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events

from mgcc_monai.errors import MGCCError

__all__ = ["OutOfMemory", "is_out_of_memory"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU's or the machine's memory is used up."""
    words = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


class OutOfMemory:
    """End a training that runs out of memory with the settings to lower; checkpoints written before are kept.

    Args:
        settings: names of options, those that help most first.

    Raises:
        MGCCError: in place of the allocator's error.
    """

    def __init__(self, settings: Sequence[str]) -> None:
        self.settings = list(settings)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: BaseException) -> None:
        """Turn an allocator's error into a plain one; leave every other."""
        if not is_out_of_memory(error):
            raise error
        names = ", ".join(f"--{name}" for name in self.settings)
        raise MGCCError(
            f"Out of memory in iteration {engine.state.iteration}: lower {names}, or take a smaller preset; the last "
            "checkpoint is kept, but --resume true needs the settings that it was written with."
        ) from None
