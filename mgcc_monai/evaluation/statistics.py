"""Intervals for the figures of an evaluation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import binomtest

__all__ = ["bootstrap_mean", "wilson_interval"]


def bootstrap_mean(
    values: Sequence[float], groups: Sequence[Hashable], repeats: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean over the images and its percentile interval from resampling whole groups.

    Images of one group (a patient, or near-duplicates) are alike, so groups are drawn, with replacement and with all
    their images. NaNs are left out first, and a group that had nothing else with them. One group says nothing of the
    spread between groups: its interval is NaN. With few groups (below some 20) the interval is too narrow.

    Args:
        values: one number an image.
        groups: the group of each image.
        repeats: bootstrap samples.
        seed: of the draw; the same seed gives the same interval.
        confidence: in (0, 1).

    Returns:
        (mean, low, high), all NaN where no number is left.

    Raises:
        ValueError: if there are not as many groups as values.

    Source: Field and Welsh 2007, JRSS B 69:369 (cluster bootstrap); Efron and Tibshirani 1993, chapter 13.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(groups) != numbers.size:
        raise ValueError(f"{numbers.size} values need as many groups, but there are {len(groups)}.")
    known = ~np.isnan(numbers)
    numbers = numbers[known]
    if not numbers.size:
        return float("nan"), float("nan"), float("nan")
    index: dict[Hashable, int] = {}
    member = [index.setdefault(group, len(index)) for group, keep in zip(groups, known, strict=True) if keep]
    mean = float(numbers.mean())
    if len(index) == 1:
        return mean, float("nan"), float("nan")
    totals, sizes = np.bincount(member, weights=numbers), np.bincount(member)
    drawn = np.random.default_rng(seed).multinomial(len(index), np.full(len(index), 1 / len(index)), size=repeats)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn @ totals) / (drawn @ sizes), [tail, 1 - tail])
    return mean, float(low), float(high)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate that is also right at 0 and at 1, for independent trials.

    Args:
        successes: how many of ``n``.
        n: trials.
        confidence: in (0, 1).

    Returns:
        (low, high); NaN where ``n`` is 0.

    Source: Wilson 1927, JASA 22:209.
    """
    if n == 0:
        return float("nan"), float("nan")
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)
