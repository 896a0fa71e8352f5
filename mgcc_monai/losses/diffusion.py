"""The training loss of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.training_utils import compute_snr
from torch import nn

from mgcc_monai.losses.precision import in_float32

__all__ = ["DiffusionLoss", "min_snr_weight"]


def min_snr_weight(snr: torch.Tensor, gamma: float, prediction_type: str) -> torch.Tensor:
    """Weight of a time step's squared error so that every step counts as min(SNR, gamma) on the clean image.

    Args:
        snr: signal-to-noise ratios of the time steps, B.
        gamma: the bound; 0 leaves all weights at 1.
        prediction_type: "epsilon" or "v_prediction".

    Raises:
        ValueError: for another prediction type.

    Source:
        Hang et al. 2023 (arXiv 2303.09556), section 3.4.
    """
    if prediction_type not in ("epsilon", "v_prediction"):
        raise ValueError(f"min-SNR weights are for epsilon and v_prediction, got {prediction_type!r}.")
    if gamma <= 0:
        return torch.ones_like(snr)
    return snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)


class DiffusionLoss(nn.Module):
    """Mean squared error of the predicted noise or velocity, weighted by time step.

    Args:
        scheduler: the diffusers scheduler of the training, which knows what is predicted.
        min_snr_gamma: see :func:`min_snr_weight`; 0 for the plain error.

    Source:
        Ho et al. 2020 (arXiv 2006.11239), equation 14; Salimans and Ho 2022 (arXiv 2202.00512), appendix D.
    """

    def __init__(self, scheduler: Any, min_snr_gamma: float = 0.0) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.min_snr_gamma = float(min_snr_gamma)
        self.parts: dict[str, float] = {}

    @in_float32
    def forward(self, pred: torch.Tensor, target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute the loss; the unweighted error stands in ``parts`` afterwards.

        Args:
            pred: what the network predicted, BCHW.
            target: what it should have, BCHW, and the time steps, B.

        Returns:
            a scalar tensor.
        """
        wanted, timesteps = target
        error = (pred - wanted).square().flatten(1).mean(1)
        self.parts = {"error": float(error.detach().mean())}
        snr = compute_snr(self.scheduler, timesteps)
        return (min_snr_weight(snr, self.min_snr_gamma, self.scheduler.config.prediction_type) * error).mean()
