"""From a batch of latents to what the denoiser and its loss take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch

from mgcc_monai.errors import MGCCError

__all__ = ["DiffusionPrepareBatch"]

_PREDICTION_TYPES = ("epsilon", "v_prediction")


class DiffusionPrepareBatch(PrepareBatch):
    """Draw noise, time steps and condition dropout for latents; what a batch brings along is not drawn.

    For the stock engines of MONAI with a :class:`monai.inferers.DiffusionInferer`. Training draws from torch's own
    generator, sample by sample; held-out batches bring ``noise`` and ``timesteps``, so each validation is the same.

    Args:
        scheduler: the diffusers scheduler, whose ``prediction_type`` is "epsilon" or "v_prediction".
        null_class: number of the class that means "no condition"; None for an unconditional network.
        condition_dropout: probability with which a sample's class becomes the null class.

    Raises:
        MGCCError: for another prediction type.

    Source:
        Ho and Salimans 2022 (arXiv 2207.12598), algorithm 1 (condition dropout).
    """

    def __init__(self, scheduler: Any, null_class: int | None = None, condition_dropout: float = 0.0) -> None:
        if scheduler.config.prediction_type not in _PREDICTION_TYPES:
            raise MGCCError(
                f"--diffusion_prediction_type {scheduler.config.prediction_type}: give one of "
                f"{', '.join(_PREDICTION_TYPES)}."
            )
        self.scheduler = scheduler
        self.null_class = null_class
        self.condition_dropout = float(condition_dropout)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, list[torch.Tensor], tuple[()], dict[str, Any]]:
        """Return latents BCHW, [target BCHW, time steps B], no arguments, and those of the inferer by name."""
        latents = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        if "noise" in batchdata:
            noise = batchdata["noise"].to(latents)
            timesteps = batchdata["timesteps"].to(latents.device)
            dropped = torch.zeros(len(latents), dtype=torch.bool)
        else:
            noise = torch.randn(latents.shape).to(latents)
            timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, latents.shape[:1])
            timesteps = timesteps.to(latents.device)
            dropped = torch.rand(latents.shape[:1]) < self.condition_dropout
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        options = {"noise": noise, "timesteps": timesteps}
        if self.null_class is not None:
            classes = batchdata["class_label"].masked_fill(dropped, self.null_class)
            options["condition"] = classes.to(latents.device)
        return latents, [target, timesteps], (), options
