"""Intervals against scipy, formulas and the law that they are made for: coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from mgcc_monai.evaluation.statistics import bootstrap_mean, wilson_interval


def test_one_image_a_group_is_the_common_bootstrap() -> None:
    values = np.random.default_rng(1).beta(5, 2, 60)
    mean, low, high = bootstrap_mean(values, range(60), repeats=20000)
    oracle = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=2).confidence_interval
    assert mean == pytest.approx(values.mean())
    width = oracle.high - oracle.low
    assert abs(low - oracle.low) < 0.03 * width
    assert abs(high - oracle.high) < 0.03 * width


def test_clusters_agree_with_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 15, 70)
    values = rng.normal(groups / 15, 0.1)
    parts = [values[groups == group] for group in np.unique(groups)]
    means = [np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))]).mean() for _ in range(8000)]
    mean, low, high = bootstrap_mean(values, groups.tolist(), repeats=8000)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.05 * np.std(means) * 4)


def test_coverage_on_clustered_data() -> None:
    """95 % intervals hold the truth about 95 times of 100; taking images for independent would not."""
    rng = np.random.default_rng(0)
    trials, hits, naive_hits = 200, 0, 0
    for _ in range(trials):
        groups = np.repeat(np.arange(50), rng.integers(1, 8, 50))
        values = 0.7 + rng.normal(0, 0.1, 50)[groups] + rng.normal(0, 0.03, groups.size)
        _, low, high = bootstrap_mean(values, groups.tolist(), repeats=300)
        _, naive_low, naive_high = bootstrap_mean(values, range(groups.size), repeats=300)
        hits += low <= 0.7 <= high
        naive_hits += naive_low <= 0.7 <= naive_high
    assert 0.90 <= hits / trials <= 0.98
    assert naive_hits / trials < 0.80


def test_the_seed_decides() -> None:
    values, groups = np.random.default_rng(0).random(30), [i // 2 for i in range(30)]
    assert bootstrap_mean(values, groups) == bootstrap_mean(values, groups)
    assert bootstrap_mean(values, groups) != bootstrap_mean(values, groups, seed=1)


def test_nan_is_left_out_with_its_group() -> None:
    nan = float("nan")
    assert bootstrap_mean([1.0, nan, 3.0, nan], ["a", "a", "b", "c"]) == bootstrap_mean([1.0, 3.0], ["a", "b"])


def test_nothing_and_too_little() -> None:
    assert all(math.isnan(x) for x in bootstrap_mean([], []))
    assert all(math.isnan(x) for x in bootstrap_mean([float("nan")], ["a"]))
    mean, low, high = bootstrap_mean([0.2, 0.4], ["a", "a"])
    assert mean == pytest.approx(0.3)
    assert math.isnan(low)
    assert math.isnan(high)
    with pytest.raises(ValueError, match="groups"):
        bootstrap_mean([0.1, 0.2], ["a"])


def test_wider_confidence_is_wider() -> None:
    values = np.random.default_rng(0).random(40)
    _, low, high = bootstrap_mean(values, range(40), confidence=0.99)
    _, inner_low, inner_high = bootstrap_mean(values, range(40), confidence=0.8)
    assert low < inner_low < values.mean() < inner_high < high


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (8, 10), (10, 10), (3, 97)])
def test_wilson_by_its_formula(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-9)


def test_wilson_of_nothing() -> None:
    assert all(math.isnan(x) for x in wilson_interval(0, 0))
