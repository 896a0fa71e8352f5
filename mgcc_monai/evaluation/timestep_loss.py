"""How well the denoiser does on held-out images, by noise level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric

from mgcc_monai.distributed import gather, rank_and_size

__all__ = ["TimestepBandLoss"]


class TimestepBandLoss(Metric):
    """Mean squared error over all samples and, as ``<name>_t0-249`` and so on, over bands of time steps.

    A low band is nearly clean latents, where speckle is decided; a high one nearly noise, where anatomy is.

    Args:
        num_train_timesteps: number of time steps of the training.
        bands: number of bands of equal width.
        output_transform: from the engine's output to the lists of predictions CHW and of [target CHW, time step].
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        bands: int = 4,
        output_transform: Callable[[Any], Any] = lambda output: output,
    ) -> None:
        self.steps, self.bands = int(num_train_timesteps), int(bands)
        super().__init__(output_transform=output_transform)

    def reset(self) -> None:
        """Forget every sample."""
        self._errors: dict[tuple[int, int], tuple[int, float]] = {}

    def update(self, output: Any) -> None:
        """Take the samples of a batch."""
        for pred, (target, timestep) in zip(*output):
            error = float((torch.as_tensor(pred).float() - torch.as_tensor(target).float()).square().mean())
            step = int(timestep)
            self._errors[(rank_and_size()[0], len(self._errors))] = (step * self.bands // self.steps, error)

    def compute(self) -> dict[int, float]:
        """Return the mean error by band, and under -1 over all."""
        rows = gather({str(key): value for key, value in self._errors.items()}).values()
        found = {band: [error for other, error in rows if other == band] for band in range(self.bands)}
        found[-1] = [error for _, error in rows]
        return {band: sum(errors) / len(errors) for band, errors in found.items() if errors}

    def completed(self, engine: Engine, name: str) -> None:
        """Put the means into the engine's metrics."""
        for band, value in self.compute().items():
            first, last = (-(-edge * self.steps // self.bands) for edge in (band, band + 1))
            engine.state.metrics[name if band < 0 else f"{name}_t{first}-{last - 1}"] = value
