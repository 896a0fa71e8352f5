"""The audit against planted copies, novel images, and an autoencoder that breaks it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mgcc_monai.data.phantom.write import make_phantom
from mgcc_monai.errors import MGCCError
from mgcc_monai.gate import memorisation
from mgcc_monai.gate.memorisation import (
    AuditFailed,
    audit,
    calibrate,
    correlations,
    nearest_reference,
    positive_controls,
)


def phantoms(first: int, count: int) -> Tensor:
    images = [make_phantom(3, index, (64, 64)).image for index in range(first, first + count)]
    return to_128(torch.from_numpy(np.stack(images)).float()[:, None] / 255)


def to_128(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(128, 128), mode="bilinear")


def lossy(images: Tensor) -> Tensor:
    """As an autoencoder: a quarter of the pixels a side are left."""
    return to_128(F.avg_pool2d(images, 4))


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Shifted by whole pixels, the borders repeated."""
    padded = F.pad(images, (8, 8, 8, 8), mode="replicate")
    return padded[:, :, 8 - down : 8 - down + images.shape[2], 8 - right : 8 - right + images.shape[3]]


@pytest.fixture(scope="module")
def training() -> Tensor:
    return phantoms(0, 40)


@pytest.fixture(scope="module")
def heldout() -> Tensor:
    return phantoms(40, 40)


@pytest.fixture(scope="module")
def novel() -> Tensor:
    return phantoms(80, 40)


def test_an_image_is_its_own_copy(training: Tensor) -> None:
    correlation, index = nearest_reference(training, training)
    assert index.tolist() == list(range(40))
    torch.testing.assert_close(correlation, torch.ones(40))


def test_one_correlation_by_hand(training: Tensor, heldout: Tensor) -> None:
    """Slow and plain: every window of every shift and side, one after the other, with numpy."""
    a, b = (memorisation._detail(images)[0, 0].double().numpy() for images in (training[:1], heldout[:1]))
    mirrored = memorisation._detail(heldout[:1].flip(-1))[0, 0].double().numpy()

    def cells(window: np.ndarray) -> np.ndarray:
        return window.reshape(29, 2, 29, 2).mean(axis=(1, 3)).ravel()

    best = -1.0
    for detail in (b, mirrored):
        for top in range(7):
            for left in range(7):
                shifted = cells(detail[top : top + 58, left : left + 58])
                best = max(best, np.corrcoef(cells(a[3:61, 3:61]), shifted)[0, 1])
    assert correlations(training[:1], heldout[:1]).item() == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, 4), (-5, 6), (6, -6), (1, -1), (-3, -5)])
def test_shifted_copies_are_near_whatever_the_shift(training: Tensor, down: int, right: int) -> None:
    correlation, index = nearest_reference(lossy(moved(training[:12], down, right)), training)
    assert index.tolist() == list(range(12)) and correlation.min() > 0.8
    correlation, index = nearest_reference(lossy(moved(training[:12].flip(-1), down, right)), training)
    assert index.tolist() == list(range(12)) and correlation.min() > 0.8


def test_a_shift_beyond_the_search_is_not_claimed(training: Tensor) -> None:
    near, far = (correlations(training[:12].roll(by, dims=2), training[:12]).diagonal() for by in (6, 20))
    assert near.min() > 0.8 and far.max() < 0.7


@pytest.mark.parametrize(("gain", "offset", "gamma"), [(0.5, 0.0, 1.0), (0.7, 0.2, 1.0), (1.0, 0.0, 0.6), (1, 0, 1.6)])
def test_brightness_contrast_and_gamma_hardly_count(training: Tensor, gain: float, offset: float, gamma: float) -> None:
    correlation, index = nearest_reference(gain * training[:12] ** gamma + offset, training)
    assert index.tolist() == list(range(12)) and correlation.min() > 0.93


def test_sizes_may_differ_and_even_images_are_like_none(training: Tensor) -> None:
    larger = F.interpolate(training[:6], size=(200, 160), mode="bilinear")
    correlation, index = nearest_reference(larger, training)
    assert index.tolist() == list(range(6)) and correlation.min() > 0.97
    for value in (0.0, 0.4, 1.0):
        assert nearest_reference(torch.full((2, 1, 64, 64), value), training)[0].abs().max() < 1e-3


def test_blocks_change_nothing(training: Tensor, heldout: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = torch.cat([training[:3], heldout[:6], training[1:2]])
    whole = correlations(heldout[:7], training[:9]), audit(generated, training, heldout, lossy)
    monkeypatch.setattr(memorisation, "BLOCK", 4)
    torch.testing.assert_close(correlations(heldout[:7], training[:9]), whole[0])
    report = audit(generated, training, heldout, lossy)
    for one, other in zip(report.pop("images"), whole[1].pop("images"), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert report == whole[1] | {"threshold": pytest.approx(whole[1]["threshold"], abs=1e-5)}
    assert report["copies_generated"] == 4 and report["copied_training_images"] == 3


def test_the_threshold_is_exceeded_by_one_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(1, 40) / 40
    monkeypatch.setattr(memorisation, "nearest_reference", lambda images, references: (values[: len(images)], None))
    images = torch.zeros(39, 1, 16, 16)
    assert calibrate(images, images) == pytest.approx(38 / 40)  # of 40 ranks the 38th: 2 of 40 lie above
    assert calibrate(images[:10], images) == pytest.approx(10 / 40)  # too few: the highest


def test_planted_copies_are_as_said(training: Tensor) -> None:
    planted = positive_controls(training, lambda images: images, seed=5)
    assert list(planted) == ["lossy", "flipped", "shifted", "brightened"]
    for copies, index in planted.values():
        assert copies.shape == training.shape and index.tolist() == list(range(40))
    assert torch.equal(planted["lossy"][0], training)
    assert torch.equal(planted["flipped"][0], training.flip(-1))
    for kind in ("shifted", "brightened"):
        assert not torch.equal(planted[kind][0], training)
        assert torch.equal(planted[kind][0], positive_controls(training, lambda images: images, seed=5)[kind][0])
    inner = planted["shifted"][0][0, 0, 20:100, 20:100]
    windows = [training[0, 0, 20 + y : 100 + y, 20 + x : 100 + x] for y in range(-6, 7) for x in range(-6, 7)]
    assert any(torch.equal(inner, window) for window in windows)
    darkened = positive_controls(training, lambda images: 0.5 * images)
    assert all(copies.max() <= 0.5 for copies, _ in darkened.values())  # every kind went through the autoencoder


def test_copies_are_found_and_novel_images_are_not(training: Tensor, heldout: Tensor, novel: Tensor) -> None:
    copies = lossy(torch.cat([training[10:15], moved(training[20:25].flip(-1), 4, -3), training[10:12] ** 0.8]))
    report = audit(torch.cat([copies, novel]), training, heldout, lossy, novel=novel)
    json.dumps(report, allow_nan=False)
    rows = report["images"]
    assert [row["nearest_reference"] for row in rows[:12]] == [*range(10, 15), *range(20, 25), 10, 11]
    assert all(row["flagged"] and row["correlation"] > report["threshold"] for row in rows[:12])
    false = sum(row["flagged"] for row in rows[12:])
    assert false <= 5  # of 40 novel images; 2 are expected
    assert report["copies_generated"] == 12 + false
    assert 10 <= report["copied_training_images"] <= 10 + 2 * false
    assert report["novel"] == {"images": 40, "false_positives": false}
    assert report["novel_reconstructed"]["false_positives"] <= 6
    assert set(report["recall"].values()) == {1.0}
    assert report["expected_false_positive_rate"] == pytest.approx(0.05)
    assert report["calibration_images"] == 40 and report["percentile"] == 95


def test_nothing_generated_is_nothing_copied(training: Tensor, heldout: Tensor) -> None:
    report = audit(training[:0], training, heldout, lossy)
    assert report["copies_generated"] == report["copied_training_images"] == 0 and report["images"] == []


def _noise(images: Tensor) -> Tensor:
    return torch.rand(images.shape, generator=torch.Generator().manual_seed(len(images)))


@pytest.mark.parametrize(
    "broken",
    [_noise, lambda images: torch.full_like(images, 0.5), lambda images: images[:1].expand_as(images)],
    ids=["noise", "even", "one image"],
)
def test_a_broken_autoencoder_fails_the_audit(training: Tensor, heldout: Tensor, broken) -> None:
    with pytest.raises(AuditFailed, match=r"lossy 0\.\d\d.*nothing may be shared; train the autoencoder") as caught:
        audit(training[:3], training, heldout, broken)
    assert isinstance(caught.value, MGCCError) and "\n" not in str(caught.value)


def test_a_detector_blind_to_one_side_fails_the_audit(
    training: Tensor, heldout: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(images: Tensor, references: Tensor) -> Tensor:
        a, b = (memorisation._window(memorisation._detail(part), 3, 3) for part in (images, references))
        return a @ b.T

    monkeypatch.setattr(memorisation, "correlations", blind)
    with pytest.raises(AuditFailed) as caught:
        audit(training[:3], training, heldout, lossy)
    assert "flipped" in str(caught.value) and "lossy" not in str(caught.value)


def test_training_images_among_the_held_out_ones_fail_the_audit(training: Tensor) -> None:
    with pytest.raises(AuditFailed, match="near-duplicate"):
        audit(training[:3], training, training[:30], lossy)


def test_too_few_images_are_told(training: Tensor, heldout: Tensor) -> None:
    with pytest.raises(MGCCError, match="4 held-out images found; give at least 5"):
        audit(training[:3], training, heldout[:4], lossy)
    with pytest.raises(MGCCError, match="0 held-out images found"):
        audit(training[:3], training, heldout[:0], lossy)
    with pytest.raises(MGCCError, match="no training images"):
        audit(training[:3], training[:0], heldout, lossy)
    few = audit(training[:3], training, heldout[:8], lossy)
    assert few["expected_false_positive_rate"] == pytest.approx(1 / 9)


def test_an_autoencoder_of_another_shape_or_not_finite_is_told(training: Tensor, heldout: Tensor) -> None:
    for wrong in (lambda images: F.avg_pool2d(images, 2), lambda images: images * float("nan")):
        with pytest.raises(MGCCError, match="train it again"):
            audit(training[:3], training, heldout, wrong)
