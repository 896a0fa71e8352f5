"""The threshold that turns probabilities into a mask, chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric

__all__ = ["THRESHOLDS", "BestThreshold", "BestThresholdHandler", "DiceByThreshold", "best_threshold", "foreground"]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def foreground(prob: torch.Tensor, channel_dim: int = 0) -> torch.Tensor:
    """Probability of lesion: the one channel, or one minus the background of a softmax; the channel axis is kept.

    Args:
        prob: probabilities with 1 (sigmoid) or at least 2 (softmax, background first) channels.
        channel_dim: where the channels are: 0 for CHW, 1 for BCHW.
    """
    first = prob.narrow(channel_dim, 0, 1)
    return first if prob.shape[channel_dim] == 1 else 1 - first


def best_threshold(means: Sequence[float], thresholds: Sequence[float] = THRESHOLDS, tolerance: float = 1e-3) -> float:
    """The threshold nearest to 0.5 among those whose mean lies within ``tolerance`` of the best.

    On a plateau the best of a few dozen images is chance; the middle is the safer choice. Of two equally near, the
    lower.

    Args:
        means: one figure a threshold, higher is better.
        thresholds: in [0, 1].
        tolerance: what counts as equal.

    Raises:
        ValueError: if the two differ in length, are empty, or no mean is a number.
    """
    figures = np.asarray(means, dtype=np.float64)
    if figures.shape != (len(thresholds),) or not np.isfinite(figures).any():
        raise ValueError(f"{len(thresholds)} thresholds need as many finite means, but got {figures.tolist()}.")
    good = figures >= np.nanmax(figures) - tolerance
    return min((round(abs(t - 0.5), 9), float(t)) for t, keep in zip(thresholds, good, strict=True) if keep)[1]


class DiceByThreshold(CumulativeIterationMetric):
    """Mean Dice over the images for every threshold of a grid: 1 where both masks are empty, 0 where one is.

    Call it with probabilities B1HW (or BCHW from a softmax, or a list of CHW) and labels B1HW with 0 and 1 (or
    one-hot BCHW with the background first); a pixel is lesion where its probability is at least the threshold.

    Args:
        thresholds: in (0, 1); 0.05, 0.10, ... 0.95 unless told.
    """

    def __init__(self, thresholds: Sequence[float] | None = None) -> None:
        super().__init__()
        self.thresholds = tuple(float(t) for t in thresholds or THRESHOLDS)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.shape[0] != y.shape[0] or y_pred.shape[2:] != y.shape[2:]:
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"probabilities {tuple(y_pred.shape)} and labels {shape} must be images of the same size.")
        prob = foreground(y_pred.detach().float(), 1).flatten(1)
        label = foreground(y.detach().float(), 1).flatten(1) > 0.5
        wanted = label.sum(1)
        columns = []
        for threshold in self.thresholds:
            mask = prob >= threshold
            size, both = mask.sum(1) + wanted, (mask & label).sum(1)
            columns.append(torch.where(size > 0, 2 * both / size.clamp(min=1), torch.ones_like(size, dtype=prob.dtype)))
        return torch.stack(columns, dim=1)

    def aggregate(self) -> torch.Tensor:
        """Mean Dice a threshold, float64 on the CPU."""
        dice = self.get_buffer()
        if dice is None or not len(dice):
            raise ValueError("no image has been seen: call the metric before aggregate().")
        return dice.double().mean(0).cpu()


class BestThreshold(DiceByThreshold):
    """As :class:`DiceByThreshold`, but ``aggregate()`` gives the threshold that :func:`best_threshold` chooses."""

    def aggregate(self) -> torch.Tensor:
        """The chosen threshold, a float64 scalar."""
        return torch.tensor(best_threshold(super().aggregate().tolist(), self.thresholds), dtype=torch.float64)


class BestThresholdHandler(IgniteMetricHandler):
    """Puts the best threshold, a float, into ``engine.state.metrics`` under the name it is attached by.

    ``additional_metrics={"val_threshold": BestThresholdHandler(output_transform=from_engine(["prob", "label"]))}`` on
    an evaluator whose postprocessing leaves probabilities there.

    Args:
        output_transform: gives (probabilities, labels) of ``engine.state.output``.
        thresholds: as for :class:`DiceByThreshold`.
        save_details: keep every image's Dice by threshold in ``engine.state.metric_details``.
    """

    def __init__(
        self,
        output_transform: Callable = lambda x: x,
        thresholds: Sequence[float] | None = None,
        save_details: bool = False,
    ) -> None:
        metric = BestThreshold(thresholds)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)
