"""The other half of an adversarial training, beside the stock trainer."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from mgcc_monai.losses.autoencoder import judge

__all__ = ["DiscriminatorStep"]


class DiscriminatorStep:
    """Switch the adversarial loss on at an iteration, and from then on train the discriminator after every batch.

    Args:
        discriminator: judges patches of images B1HW.
        optimizer: of the discriminator's weights.
        loss_function: the :class:`mgcc_monai.losses.AutoencoderLoss` that uses the discriminator.
        start: the first iteration, counted from 1, with adversarial loss.
    """

    def __init__(
        self, discriminator: nn.Module, optimizer: torch.optim.Optimizer, loss_function: Any, start: int
    ) -> None:
        self.discriminator, self.optimizer = discriminator, optimizer
        self.loss_function, self.start = loss_function, int(start)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.switch)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def switch(self, engine: Engine) -> None:
        """Tell the loss whether the adversarial part counts in this iteration."""
        self.loss_function.adversarial_active = engine.state.iteration >= self.start

    def __call__(self, engine: Engine) -> None:
        """Take one step on this batch's images and their reconstructions."""
        if not self.loss_function.adversarial_active:
            return
        image, made = engine.state.output["label"], engine.state.output["pred"][0].detach()
        adversarial = self.loss_function.adversarial
        loss = 0.5 * (
            adversarial(judge(self.discriminator, image), target_is_real=True, for_discriminator=True)
            + adversarial(judge(self.discriminator, made), target_is_real=False, for_discriminator=True)
        )
        self.optimizer.zero_grad()  # drops what the generator's own loss left in it
        loss.backward()
        self.optimizer.step()
        self.loss_function.parts["discriminator"] = float(loss.detach())
