"""The last part of the autoencoder's training: its decoder alone learns to give fine detail its strength."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

__all__ = ["DetailPhase"]


class DetailPhase:
    """Switch the detail losses on at an iteration, and from then on leave some weights as they are.

    The encoder's are to rest: what the latents keep of an image is then decided by reconstruction alone, and a
    denoiser of these latents stays valid however long the decoder is trained on.

    Args:
        loss_function: the :class:`mgcc_monai.losses.AutoencoderLoss`.
        start: the first iteration, counted from 1, of the phase.
        frozen: the weights that no longer move in it.
    """

    def __init__(self, loss_function: Any, start: int, frozen: Iterable[nn.Parameter] = ()) -> None:
        self.loss_function, self.start, self.frozen = loss_function, int(start), list(frozen)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.switch)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def switch(self, engine: Engine) -> None:
        """Tell the loss whether this iteration is one of the phase."""
        self.loss_function.detail_active = engine.state.iteration >= self.start

    def __call__(self, engine: Engine) -> None:
        """Take away the gradients of the weights that rest: an optimizer passes over a weight without one."""
        if self.loss_function.detail_active:
            for weight in self.frozen:
                weight.grad = None
