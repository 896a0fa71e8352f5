"""Which generated images are not fit to be used, by a rule that the training images set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.gate.features import BLOCK, ScatteringFeatures, band_power, check_images, extract, standardise, to_side

__all__ = ["Decision", "QualityGate", "image_scores", "too_few"]

_LEAST = 10  # training images, below which no limit can be set


def too_few(training: int, copied: int = 0) -> list[str]:
    """Return what keeps so many training images, some of which have an exact copy among them, from setting limits."""
    if training < _LEAST:
        return [f"quality: {training} training images found; the gate needs at least {_LEAST}"]
    if 2 * copied >= training:
        return ["quality: most training images have an exact copy among them; leave out the copies"]
    return []


def image_scores(images: Tensor) -> dict[str, Tensor]:
    """Plain scores of each image by itself, taken at 128 x 128.

    Args:
        images: B1HW in [0, 1].

    Returns:
        each (B,), float64: ``mean`` and ``contrast`` (standard deviation) of the grey levels; ``coarse_structure`` and
        ``fine_detail``, the variance at 0.02 to 0.1 and at 0.2 to 0.5 cycles a pixel in decibels.
    """
    images = to_side(check_images(images)).double()
    power = band_power(images) + 1e-9
    return {
        "mean": images.mean(dim=(1, 2, 3)).cpu(),
        "contrast": images.std(dim=(1, 2, 3), correction=0).cpu(),
        "coarse_structure": 10 * power[:, 0].log10().cpu(),
        "fine_detail": 10 * (power[:, 2] + power[:, 3]).log10().cpu(),
    }


def _nearest(a: Tensor, b: Tensor, source: Tensor | None = None) -> Tensor:
    """Distance of each row of (N, D) to the nearest of (M, D), but those of the same ``source``: (N,).

    The nearest is found by matrix products: of two that differ by 1e-8 of the rows' length, either may be taken.
    """
    found = []
    for rows in torch.arange(len(a)).split(BLOCK):
        apart = torch.cdist(a[rows], b)
        if source is not None:
            apart[source[rows, None] == source] = float("inf")
        found.append((a[rows] - b[apart.argmin(dim=1)]).norm(dim=1))  # again, without cancellation
    return torch.cat(found)


def _measure(network: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Features and scores of images that come batch by batch."""
    found, scores = zip(*((extract(network, batch), image_scores(batch)) for batch in batches), strict=True)
    return torch.cat(found), {name: torch.cat([part[name] for part in scores]) for name in scores[0]}


class Decision(NamedTuple):
    """Of one image: whether to ``keep`` it, the ``reason`` if not (else empty), and its ``scores``."""

    keep: bool
    reason: str
    scores: dict[str, float]


@dataclass(frozen=True)
class QualityGate:
    """Drop generated images that no training image is like: empty, even, noise, saturated, without speckle.

    To the scores of :func:`image_scores` comes ``distance``: how far the nearest training image lies in feature space,
    in units of the median of that among the training images, each without itself. For each score the median and the
    10th and 90th percentile of the training images make an interval; all intervals are stretched about their medians
    by one factor, such that 99 % of the training images lie in all of them. So some 1 % of further real images are
    dropped, 1 / (N + 1) where N < 99 training images fix the factor, and nothing is set by hand. (Percentiles farther
    out would be fitted to the very images that fix the factor, and up to 5 % of further images then fell outside.)

    Real images kept, none a near-duplicate of a training image: of BUSI 153 of 154, with 362 for training; of phantoms
    99.0 % of 300, 100 % of 200 and 97.3 % of 74, each with 126 for training; 95.5 % of 200, with 40. Of 40 images of
    each, all were dropped that were empty, even, noise, saturated, of a third of the contrast, blurred by 9 x 9
    pixels, or with added noise of deviation 0.1. Where an autoencoder that keeps means over 2 x 2 pixels counted as
    real (below), 19 of the 40 blurred BUSI images were kept, and none of the others.

    What the autoencoder cannot draw, no generated image has. So its reconstructions may count as training images too;
    the loss that all share is told by :func:`mgcc_monai.gate.quality.assess`, and the gate finds outliers.
    Nearness is not judged: copies are the business of :mod:`mgcc_monai.gate.memorisation`.

    Args:
        limits: of each score, lowest and highest that is kept.
        features: (N, D), of the training images, standardised by ``origin``.
        origin: (M, D), features of the training images as they are.
        spread: median distance of a training image to its nearest neighbour.
        network: of the features.
    """

    limits: dict[str, tuple[float, float]]
    features: Tensor
    origin: Tensor
    spread: float
    network: nn.Module

    @classmethod
    def fit(
        cls, images: Tensor, reconstruct: Callable[[Tensor], Tensor] | None = None, network: nn.Module | None = None
    ) -> QualityGate:
        """Set the limits by training images.

        Args:
            images: B1HW in [0, 1], real.
            reconstruct: the autoencoder, from B1HW in [0, 1] to the same, whose results count beside the images.
            network: of the features; :class:`ScatteringFeatures` by default.

        Raises:
            MGCCError: for fewer than 10 images, or images that are mostly the same.
        """
        raise_errors(too_few(len(images)))
        network = ScatteringFeatures() if network is None else network
        batches = images.split(32)
        seen = [_measure(network, batches)]
        if reconstruct is not None:
            rebuilt = (reconstruct(batch).detach().float().cpu().clamp(0, 1) for batch in batches)
            seen.append(_measure(network, rebuilt))
        origin = seen[0][0]
        known = standardise(torch.cat([features for features, _ in seen]), origin)
        source = torch.arange(len(images)).repeat(len(seen))  # each image without itself and its reconstruction
        nearest = _nearest(known, known, source)
        spread = nearest.median().item()
        if not spread > 0:
            raise MGCCError(*too_few(len(images), len(images)))
        rows = {name: torch.cat([scores[name] for _, scores in seen]) for name in seen[0][1]}
        rows["distance"] = nearest / spread
        table = torch.stack(list(rows.values()), dim=1).numpy()
        low, median, high = np.quantile(table, [0.1, 0.5, 0.9], axis=0)
        least = np.maximum(0.1 * (high - low), 1e-6)  # a side on which all images are alike keeps some width
        below, above = np.maximum(median - low, least), np.maximum(high - median, least)
        below[-1] = np.inf  # no image is too near
        excess = np.maximum((table - median) / above, (median - table) / below).max(axis=1)
        excess = excess.reshape(len(seen), -1).max(axis=0)  # an image and its reconstruction are one witness
        factor = np.quantile(excess, 0.99, method="weibull")  # beyond which 1 % of new images are expected
        limits = dict(zip(rows, zip((median - factor * below).tolist(), (median + factor * above).tolist())))
        limits["distance"] = (0.0, limits["distance"][1])
        return cls(limits, known, origin, spread, network)

    def decide(self, images: Tensor) -> list[Decision]:
        """Judge images.

        Args:
            images: B1HW in [0, 1].

        Returns:
            one :class:`Decision` an image, in order.
        """
        if not len(images):
            return []
        features, scores = _measure(self.network, images.split(32))
        scores["distance"] = _nearest(standardise(features, self.origin), self.features) / self.spread
        decisions = []
        for values in torch.stack(list(scores.values()), dim=1).tolist():
            row = dict(zip(scores, values))
            faults = [
                f"{name} {value:.3g}, kept from {self.limits[name][0]:.3g} to {self.limits[name][1]:.3g}"
                for name, value in row.items()
                if not self.limits[name][0] <= value <= self.limits[name][1]
            ]
            decisions.append(Decision(not faults, "; ".join(faults), row))
        return decisions
