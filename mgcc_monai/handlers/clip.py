"""Gradient clipping beside the stock trainer."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

__all__ = ["GradientClipping"]


class GradientClipping:
    """Scale the gradients down to a largest norm before each step; with mixed precision, those that are not scaled.

    Args:
        network: whose gradients.
        max_norm: the largest Euclidean norm over all of them.
    """

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.network, self.max_norm = network, float(max_norm)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip."""
        if getattr(engine, "amp", False) and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
