"""Randomness as a function of (seed, progress)."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from mgcc_monai.distributed import rank_and_size
from mgcc_monai.seeds import torch_seed

__all__ = ["IterationSeed"]


class IterationSeed:
    """Seed torch anew before every iteration, and tell the loader its epoch.

    With it no draw depends on what was drawn before, by a preview, a validation or a worker, so a run that starts at
    any iteration goes on exactly as one that was never stopped, and nothing random need be saved.

    Args:
        seed: seed of the run.
        loader: a loader or sampler with ``set_epoch``, such as :class:`mgcc_monai.data.TwoStreamLoader`.
    """

    def __init__(self, seed: int, loader: Any = None) -> None:
        self.seed = int(seed)
        self.loader = loader

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.set_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def set_epoch(self, engine: Engine) -> None:
        """Tell the loader the epoch, counted from 0, and how many of its batches a resumed run has had."""
        if self.loader is not None:
            epoch = engine.state.epoch - 1
            self.loader.set_epoch(epoch, engine.state.iteration - epoch * engine.state.epoch_length)

    def __call__(self, engine: Engine) -> None:
        """Seed torch from (seed, rank, iteration)."""
        torch.manual_seed(torch_seed(self.seed, rank_and_size()[0], engine.state.iteration))
