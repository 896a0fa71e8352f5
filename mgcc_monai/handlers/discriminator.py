"""The other half of an adversarial training, beside the stock trainer."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

from mgcc_monai.distributed import average_gradients
from mgcc_monai.handlers.finite_guard import not_finite
from mgcc_monai.losses.autoencoder import discriminator_logits

__all__ = ["DiscriminatorStep"]


class DiscriminatorStep:
    """Train the discriminator after every batch of the detail phase; see :class:`mgcc_monai.handlers.DetailPhase`.

    Args:
        discriminator: judges patches of images B1HW.
        optimizer: of the discriminator's weights.
        loss_function: the :class:`mgcc_monai.losses.AutoencoderLoss` that uses the discriminator.
    """

    def __init__(self, discriminator: nn.Module, optimizer: torch.optim.Optimizer, loss_function: Any) -> None:
        self.discriminator, self.optimizer, self.loss_function = discriminator, optimizer, loss_function

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Take one step on this batch's images and their reconstructions."""
        if not self.loss_function.detail_active:
            return
        image, made = engine.state.output["label"], engine.state.output["pred"][0].detach().float()
        adversarial = self.loss_function.adversarial
        loss = 0.5 * (
            adversarial(discriminator_logits(self.discriminator, image), target_is_real=True, for_discriminator=True)
            + adversarial(discriminator_logits(self.discriminator, made), target_is_real=False, for_discriminator=True)
        )
        if not torch.isfinite(loss):
            raise not_finite(engine, "the discriminator's loss is", self.loss_function.parts)
        self.optimizer.zero_grad()  # drops what the generator's own loss left in it
        loss.backward()
        average_gradients(self.discriminator.parameters())
        self.optimizer.step()
        self.loss_function.parts["discriminator"] = float(loss.detach())
