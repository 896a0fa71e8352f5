"""Pictures while it trains, one sheet a validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from mgcc_monai.distributed import is_main_process
from mgcc_monai.pictures import write_sheet

__all__ = ["ReconstructionPreview", "SamplePreview"]


class ReconstructionPreview:
    """Write the first validation images above their reconstructions: ``<folder>/epoch_0001.png``.

    Args:
        folder: where the sheets go.
        count: images on a sheet.
    """

    def __init__(self, folder: str, count: int = 8) -> None:
        self.folder = Path(folder)
        self.count = int(count)
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the validation engine."""
        engine.add_event_handler(Events.STARTED, lambda _: self._pairs.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self)

    def collect(self, engine: Engine) -> None:
        """Keep what this batch shows, until there is enough."""
        for item in engine.state.output[: self.count - len(self._pairs)]:
            self._pairs.append((item["label"].detach().cpu(), item["pred"].detach().cpu()))

    def __call__(self, engine: Engine) -> None:
        """Write the sheet of this validation."""
        if not self._pairs or not is_main_process():
            return
        images = torch.stack([image for pair in zip(*self._pairs) for image in pair])
        write_sheet(self.folder / f"epoch_{engine.state.epoch:04d}.png", (images + 1) / 2, len(self._pairs))


class SamplePreview:
    """Write the same few samples after each validation, from the weights that it saw: ``<folder>/epoch_0001.png``.

    The samples are functions of (seed, index) with generators of their own, so training draws what it would without.

    Args:
        folder: where the sheets go.
        pipeline: a :class:`mgcc_monai.generation.LatentDiffusionPipeline` over the network in training.
        count: samples on a sheet.
        seed: their seed.
        num_inference_steps: steps of the sampler.
        interval: validations between two sheets.
    """

    def __init__(
        self,
        folder: str,
        pipeline: Any,
        count: int = 8,
        seed: int = 0,
        num_inference_steps: int = 25,
        interval: int = 1,
    ) -> None:
        self.folder, self.pipeline = Path(folder), pipeline
        self.count, self.seed, self.steps = int(count), int(seed), int(num_inference_steps)
        self.interval = max(1, int(interval))

    def attach(self, engine: Engine) -> None:
        """Attach to the validation engine."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the sheet of this validation."""
        if self.count < 1 or engine.state.epoch % self.interval or not is_main_process():
            return
        images = self.pipeline(indices=list(range(self.count)), seed=self.seed, num_inference_steps=self.steps)
        write_sheet(self.folder / f"epoch_{engine.state.epoch:04d}.png", images, min(self.count, 8))
