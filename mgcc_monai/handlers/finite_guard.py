"""A training that has become NaN stops, loudly and before it spoils anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

from mgcc_monai.errors import MGCCError

__all__ = ["FiniteGuard", "not_finite"]

_LOWEST_SCALE = 1e-3  # of a gradient scaler that has halved its scale some twenty-five times


def not_finite(engine: Engine, what: str, parts: Mapping[str, float] | None = None) -> MGCCError:
    """Return the error that ends a run whose numbers are NaN or infinite.

    Args:
        engine: the trainer, which knows epoch and iteration.
        what: what is not finite.
        parts: parts of the loss and their values.
    """
    shown = ", ".join(f"{name} {value:.4g}" for name, value in (parts or {}).items())
    return MGCCError(
        f"Epoch {engine.state.epoch}, iteration {engine.state.iteration}: {what} not finite"
        f"{f' ({shown})' if shown else ''}. The step was not taken, and the checkpoints written before are sound. "
        "Lower the learning rate, and look at the images of this batch for extreme values."
    )


class FiniteGuard:
    """Stop a training before the step in which its loss or a gradient is NaN or infinite.

    With mixed precision a gradient scaler passes over steps whose gradients overflow, which is its daily work; there
    the run stops when the scaler has lowered its scale to nearly nothing.

    Args:
        network: whose gradients.
        loss_function: a loss with ``parts``, a dict of its parts' values, for the message.

    Raises:
        MGCCError: names epoch, iteration and the parts of the loss.
    """

    def __init__(self, network: nn.Module, loss_function: Any = None) -> None:
        self.network, self.loss_function = network, loss_function

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handlers that change gradients or take steps."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check_gradients)

    def check_loss(self, engine: Engine) -> None:
        """Stop if the loss is not finite."""
        if not torch.isfinite(engine.state.output["loss"]):
            raise not_finite(engine, "the loss is", getattr(self.loss_function, "parts", None))

    def check_gradients(self, engine: Engine) -> None:
        """Stop if a gradient is not finite."""
        parts = getattr(self.loss_function, "parts", None)
        scaler = getattr(engine, "scaler", None)
        if getattr(engine, "amp", False) and scaler is not None:
            if scaler.get_scale() < _LOWEST_SCALE:
                raise not_finite(engine, "the gradients have long been", parts)
            return
        gradients = {name: weight.grad for name, weight in self.network.named_parameters() if weight.grad is not None}
        if not gradients or torch.isfinite(torch.nn.utils.get_total_norm(gradients.values())):
            return
        wrong = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        more = f" and {len(wrong) - 1} others are" if len(wrong) > 1 else " is"
        what = f"the gradient of '{wrong[0]}'{more}" if wrong else "the norm of the gradients is"
        raise not_finite(engine, what, parts)
