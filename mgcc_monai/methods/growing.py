"""Images that grow while a training goes on: coarse shapes are learned from small ones, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn

__all__ = ["GrowingInferer", "growing_scale"]


def growing_scale(step: int, max_iterations: int, scales: Sequence[float], until: float) -> float:
    """Return the scale of the images in a step: each scale in turn, equally long, then full size.

    Args:
        step: iterations done.
        max_iterations: length of the training.
        scales: of the sides, smallest first; empty for full size throughout.
        until: the fraction of the training that they take together.
    """
    part = int(step * len(scales) / (until * max_iterations))
    return scales[part] if part < len(scales) else 1.0


class GrowingInferer(SimpleInferer):
    """Run the network on smaller images in the first part of a training, and resize its logits to the images' size.

    Args:
        lr_scheduler: the schedule of the learning rate, which counts the iterations and is part of every checkpoint.
        max_iterations: length of the training.
        scales: see :func:`growing_scale`.
        until: see :func:`growing_scale`.
        stride: sides are rounded to multiples of it.

    Source:
        Tan and Le 2021 (arXiv 2104.00298), section 4 (progressive learning), with augmentation as it is.
    """

    def __init__(
        self,
        lr_scheduler: Any,
        max_iterations: int,
        scales: Sequence[float] = (0.5,),
        until: float = 0.5,
        stride: int = 16,
    ) -> None:
        super().__init__()
        if not 0 < until <= 1 or any(not 0 < scale <= 1 for scale in scales):
            raise ValueError(f"GrowingInferer needs scales and until in (0, 1], got {scales} and {until}.")
        self.lr_scheduler, self.max_iterations = lr_scheduler, int(max_iterations)
        self.scales, self.until, self.stride = [float(scale) for scale in scales], float(until), int(stride)

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the network on images BCHW; its outputs have their size."""
        scale = growing_scale(self.lr_scheduler.last_epoch, self.max_iterations, self.scales, self.until)
        full = list(inputs.shape[2:])
        size = [max(self.stride, round(side * scale / self.stride) * self.stride) for side in full]
        if scale == 1 or size == full:
            return network(inputs, *args, **kwargs)
        small = nn.functional.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        outputs = network(small, *args, **kwargs)
        return [nn.functional.interpolate(output, size=full, mode="bilinear") for output in outputs]
