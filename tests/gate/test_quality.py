"""The figures of quality against second implementations, closed forms and extremes; the gate against real and bad."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity
from torch import Tensor

from mgcc_monai.errors import MGCCError
from mgcc_monai.gate import limits, quality
from mgcc_monai.gate.features import ScatteringFeatures
from mgcc_monai.gate.limits import QualityGate, image_scores
from mgcc_monai.gate.quality import assess, fid, kid, precision_recall, ssim_diversity


def scenes(first: int, count: int) -> Tensor:
    """B1HW, 64 x 64: layers and a dark lesion under log-compressed speckle, each image of its own seed."""
    y, x = np.mgrid[:64, :64]
    images = []
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        waves = rng.normal(size=(2, 64, 64))
        envelope = np.hypot(*(gaussian_filter(wave, (0.7, 1.2), mode="wrap") for wave in waves))
        layers = gaussian_filter(rng.normal(size=(64, 64)), (3, 10))
        row, column, height, width = rng.uniform((20, 16, 6, 6), (44, 48, 14, 18))
        lesion = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1
        level = 20 * np.log10(envelope + 1e-3) + 6 * layers / layers.std() - 18 * lesion - rng.uniform(0, 0.3) * y
        images.append(np.clip((level + rng.uniform(42, 48)) / 55, 0, 1))
    return torch.from_numpy(np.stack(images)).float()[:, None]


def normal(count: int, size: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    return mean + scale * torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def training() -> Tensor:
    return scenes(0, 120)


@pytest.fixture(scope="module")
def heldout() -> Tensor:
    return scenes(120, 40)


@pytest.fixture(scope="module")
def gate(training: Tensor) -> QualityGate:
    return QualityGate.fit(training)


def test_kid_is_the_double_loop_of_its_definition() -> None:
    a, b = normal(7, 3, 0), normal(5, 3, 1, mean=0.4)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (sum(p * q for p, q in zip(x.tolist(), y.tolist())) / 3 + 1) ** 3

    inside = sum(kernel(a[i], a[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    inside += sum(kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    between = sum(kernel(x, y) for x in a for y in b) / (7 * 5)
    assert kid(a, b) == pytest.approx(inside - 2 * between)
    assert kid(a, b) == pytest.approx(kid(b, a))


def test_blocks_change_nothing(training: Tensor, heldout: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(images: Tensor) -> Tensor:
        return (images + 0.02).clamp(0, 1)

    def figures() -> tuple:
        gate = QualityGate.fit(training, lossy)
        return kid(normal(70, 3, 0), normal(50, 3, 1)), gate.limits, [one.scores for one in gate.decide(heldout[:9])]

    whole = figures()
    for module in (limits, quality):
        monkeypatch.setattr(module, "BLOCK", 7)
    value, intervals, scores = figures()
    assert value == pytest.approx(whole[0], abs=1e-12)
    assert intervals == {name: pytest.approx(interval) for name, interval in whole[1].items()}
    assert scores == [pytest.approx(one) for one in whole[2]]


def test_the_nearest_is_found_beside_others_of_its_source() -> None:
    rows = normal(40, 272, 0, mean=30.0)
    a = torch.cat([rows, rows + 1e-7, rows[:5]])  # a copy of each of the same source, and five copies of another
    source = torch.cat([torch.arange(40), torch.arange(40), torch.arange(50, 55)])
    apart = cdist(a.numpy(), a.numpy())
    apart[source[:, None].numpy() == source.numpy()] = np.inf
    np.testing.assert_allclose(limits._nearest(a, a, source).numpy(), apart.min(axis=1), rtol=1e-9, atol=1e-8 * 500)


def test_kid_is_unbiased_about_zero_and_grows_with_the_difference() -> None:
    same = [kid(normal(20, 4, 2 * seed), normal(30, 4, 2 * seed + 1)) for seed in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert min(same) < 0 < max(same)
    shifted = [kid(normal(200, 4, 0), normal(200, 4, 1, mean=mean)) for mean in (0.0, 0.3, 0.6, 1.2)]
    assert shifted == sorted(shifted) and shifted[1] > max(0.0, 5 * shifted[0])


def test_fid_of_gaussians_is_the_closed_form() -> None:
    a, b = normal(40_000, 3, 0), normal(40_000, 3, 1, mean=0.5, scale=2.0)
    assert fid(a, b, components=3) == pytest.approx(3 * 0.5**2 + 3 * (2 - 1) ** 2, rel=0.03)
    assert fid(a, a, components=3) == pytest.approx(0, abs=1e-6)


def test_fid_of_sample_moments_by_eigenvalues() -> None:
    mix = normal(5, 5, 2)
    a, b = normal(300, 5, 0) @ mix, normal(250, 5, 1, mean=0.3)
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    roots = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(first) + np.trace(second) - 2 * roots
    assert fid(a, b, components=5) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["few", "equal", "constant"])
def test_fid_is_a_number_whatever_the_features(kind: str) -> None:
    b = normal(12, 200, 1)
    a = {"few": normal(4, 200, 0), "equal": b[:1].expand(12, -1), "constant": torch.zeros(12, 200).double()}[kind]
    for pair in ((a, b), (b, a), (a, a)):
        value = fid(*pair, reference=normal(50, 200, 2))
        assert math.isfinite(value) and value >= 0


def test_precision_and_recall_by_brute_force() -> None:
    real, made, k = normal(30, 3, 0), normal(25, 3, 1, mean=0.8), 3

    def inside(points: np.ndarray, members: np.ndarray) -> float:
        hits = 0
        for point in points:
            for member in members:
                others = sorted(np.linalg.norm(members - member, axis=1))
                if np.linalg.norm(point - member) <= others[k]:
                    hits += 1
                    break
        return hits / len(points)

    expected = inside(made.numpy(), real.numpy()), inside(real.numpy(), made.numpy())
    assert precision_recall(real, made, k) == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_precision_and_recall_at_their_extremes() -> None:
    real = normal(60, 4, 0)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 1000) == (0.0, 0.0)
    one_mode = real[:1] + 1e-3 * normal(60, 4, 1)
    precision, recall = precision_recall(real, one_mode)
    assert precision == 1.0 and recall < 0.1
    with pytest.raises(ValueError, match="k must"):
        precision_recall(real, real[:3])


@pytest.mark.parametrize("figure", [kid, fid, precision_recall])
def test_figures_refuse_what_cannot_be_compared(figure) -> None:
    with pytest.raises(ValueError, match="features must"):
        figure(normal(5, 3, 0), normal(5, 4, 0))
    with pytest.raises(ValueError, match="features must"):
        figure(normal(5, 3, 0), normal(1, 3, 0))


def test_ssim_of_pairs_is_that_of_another_library(training: Tensor) -> None:
    images = F.interpolate(training[:4], size=(128, 128), mode="bilinear")
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    arrays = images[:, 0].double().numpy()
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = np.mean([structural_similarity(arrays[i], arrays[j], **options) for i, j in pairs])
    assert ssim_diversity(images) == pytest.approx(expected, abs=2e-3)
    assert ssim_diversity(images[:1].expand(3, -1, -1, -1)) == pytest.approx(1, abs=1e-5)
    assert ssim_diversity(training, pairs=20, seed=3) == ssim_diversity(training, pairs=20, seed=3)
    with pytest.raises(ValueError, match="at least 2"):
        ssim_diversity(images[:1])


def test_real_images_pass_for_real_and_changed_ones_do_not(training: Tensor, heldout: Tensor) -> None:
    fresh = scenes(160, 40)
    good = assess(fresh, heldout, training[:60])
    assert good["feature_network"] == ScatteringFeatures.name
    assert good["images"] == {"generated": 40, "heldout": 40, "training": 60}
    assert good["drawn"]["images"] == 40 and good["fid_components"] == 20
    for name in ("kid", "fid", "precision", "recall"):
        for kind in ("generated", "real"):
            assert good[name][kind]["low"] <= good[name][kind]["value"] <= good[name][kind]["high"]
    assert good["kid"]["generated"]["low"] < 0 < good["kid"]["generated"]["high"]
    assert good["precision"]["generated"]["value"] > 0.7 and good["recall"]["generated"]["value"] > 0.7
    assert good["power_ratio"]["generated"]["0.3-0.5"] == pytest.approx(1, abs=0.2)
    blurred = assess(F.avg_pool2d(fresh, 3, 1, 1), heldout, training[:60])
    assert blurred["kid"]["generated"]["low"] > blurred["kid"]["real"]["high"]
    assert blurred["fid"]["generated"]["low"] > blurred["fid"]["real"]["high"]
    assert blurred["power_ratio"]["generated"]["0.3-0.5"] < 0.2
    assert blurred["speckle"]["generated"]["width_y"] > 1.2 * blurred["speckle"]["heldout"]["width_y"]
    collapsed = assess(fresh[:10].repeat(4, 1, 1, 1), heldout, training[:60])
    assert collapsed["recall"]["generated"]["value"] < good["recall"]["generated"]["value"] - 0.2
    assert collapsed["ssim"]["generated"] > good["ssim"]["generated"] + 0.02  # 3 of 39 partners are the same


def test_the_report_is_json_and_the_seed_fixes_it(training: Tensor, heldout: Tensor) -> None:
    empty = torch.zeros(10, 1, 64, 64)
    first = json.dumps(assess(empty, heldout[:10], training[:12], seed=4), allow_nan=False)
    assert first == json.dumps(assess(empty, heldout[:10], training[:12], seed=4), allow_nan=False)


def test_too_few_images_or_two_sizes_are_told(training: Tensor, heldout: Tensor) -> None:
    with pytest.raises(MGCCError, match="9 heldout images found; give at least 10"):
        assess(training, heldout[:9], training)
    with pytest.raises(MGCCError, match="generated 32 x 32"):
        assess(torch.zeros(20, 1, 32, 32), heldout, training)
    with pytest.raises(MGCCError, match="9 training images found"):
        QualityGate.fit(training[:9])
    with pytest.raises(MGCCError, match="exact copy"):
        QualityGate.fit(training[:1].expand(20, -1, -1, -1))


def test_scores_are_of_each_image_alone(heldout: Tensor) -> None:
    scores = image_scores(heldout[:6])
    assert set(scores) == {"mean", "contrast", "coarse_structure", "fine_detail"}
    for name, values in scores.items():
        assert values.shape == (6,)
        torch.testing.assert_close(image_scores(heldout[2:3])[name], values[2:3])
    assert (image_scores(F.avg_pool2d(heldout[:6], 3, 1, 1))["fine_detail"] < scores["fine_detail"] - 5).all()


def test_real_images_are_kept(gate: QualityGate, heldout: Tensor) -> None:
    decisions = gate.decide(torch.cat([heldout, scenes(160, 80)]))
    assert sum(decision.keep for decision in decisions) >= 0.97 * 120
    assert all(decision.keep == (not decision.reason) for decision in decisions)
    assert set(decisions[0].scores) == set(gate.limits)
    assert gate.decide(heldout[:0]) == []


@pytest.mark.parametrize("fault", ["empty", "even", "noise", "noisy", "saturated", "flat", "blurred"])
def test_images_unlike_any_are_dropped_and_the_reason_told(gate: QualityGate, heldout: Tensor, fault: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = heldout[:20]
    bad = {
        "empty": torch.zeros_like(images),
        "even": torch.full_like(images, 0.4),
        "noise": torch.rand(images.shape, generator=generator),
        "noisy": (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(0, 1),
        "saturated": (6 * images).clamp(0, 1),
        "flat": 0.2 * images + 0.3,
        "blurred": F.avg_pool2d(images, 7, 1, 3),
    }[fault]
    decisions = gate.decide(bad)
    assert not any(decision.keep for decision in decisions)
    assert all("kept from" in decision.reason for decision in decisions)


def test_the_autoencoders_loss_may_count_as_real(training: Tensor, heldout: Tensor, gate: QualityGate) -> None:
    def lossy(images: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")

    both = QualityGate.fit(training, lossy)
    assert sum(decision.keep for decision in gate.decide(lossy(heldout))) < 20
    assert sum(decision.keep for decision in both.decide(lossy(heldout))) >= 38
    assert sum(decision.keep for decision in both.decide(heldout)) >= 38
    assert not any(decision.keep for decision in both.decide(torch.full_like(heldout, 0.4)))
