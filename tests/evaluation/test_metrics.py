"""Metrics against scikit-learn, MONAI, brute force and paper-and-pencil cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from mgcc_monai.evaluation.metrics import METRICS, case_metrics, lesion_sensitivity

EXACT = 1e-6


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def brute_force_distances(pred: np.ndarray, label: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    """HD95 and ASSD from all pairs of surface pixels; a surface pixel has a 4-neighbour outside of its mask."""

    def surface(mask: np.ndarray) -> np.ndarray:
        wide = np.pad(mask, 1)
        inside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
        return np.argwhere(mask & ~inside) * np.asarray(spacing)

    pairs = cdist(surface(pred), surface(label))
    there, back = pairs.min(axis=1), pairs.min(axis=0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([there, back]).mean())


def random_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    noise = [(rng.random((17, 23)) < rng.random(), rng.random((17, 23)) < rng.random()) for _ in range(12)]
    shapes = [
        (box(0, 0, 7, 9), box(2, 3, 9, 9)),  # at the corner
        (box(39, 49, 1, 1), box(0, 0, 1, 1)),  # single pixels, as far apart as can be
        (box(10, 10, 1, 1), box(10, 10, 1, 1)),
        (box(0, 0, 40, 50), box(5, 5, 3, 3)),  # all of the image
        (box(0, 20, 40, 1), box(12, 0, 1, 50)),  # lines from border to border
        (box(5, 5, 4, 4) | box(30, 40, 4, 4), box(5, 5, 4, 4)),  # one lesion too many
    ]
    return [pair for pair in noise + shapes if pair[0].any() and pair[1].any()]


@pytest.mark.parametrize(("pred", "label"), random_pairs())
def test_counts_agree_with_scikit_learn_and_monai(pred: np.ndarray, label: np.ndarray) -> None:
    ours, truth, guess = case_metrics(pred, label), label.ravel(), pred.ravel()
    assert ours["precision"] == pytest.approx(precision_score(truth, guess), abs=EXACT)
    assert ours["recall"] == pytest.approx(recall_score(truth, guess), abs=EXACT)
    assert ours["f1"] == pytest.approx(f1_score(truth, guess), abs=EXACT)
    assert ours["iou"] == pytest.approx(jaccard_score(truth, guess), abs=EXACT)
    assert ours["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=EXACT)
    tensors = [torch.from_numpy(mask)[None, None] for mask in (pred, label)]
    assert ours["dice"] == pytest.approx(DiceMetric()(*tensors).item(), abs=EXACT)
    assert ours["iou"] == pytest.approx(MeanIoU()(*tensors).item(), abs=EXACT)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.2, 0.7)])
@pytest.mark.parametrize(("pred", "label"), random_pairs())
def test_distances_agree_with_brute_force(pred: np.ndarray, label: np.ndarray, spacing: tuple | None) -> None:
    ours = case_metrics(pred, label, spacing)
    hd95, assd = brute_force_distances(pred, label, spacing or (1.0, 1.0))
    assert ours["hd95"] == pytest.approx(hd95, rel=EXACT, abs=EXACT)
    assert ours["assd"] == pytest.approx(assd, rel=EXACT, abs=EXACT)


def test_a_case_by_hand() -> None:
    ours = case_metrics(box(10, 10, 4, 5), box(10, 12, 4, 5))  # 20 pixels each, 12 in common
    expected = {"dice": 24 / 40, "iou": 12 / 28, "precision": 0.6, "recall": 0.6, "f1": 0.6, "accuracy": 1 - 16 / 2000}
    assert {key: ours[key] for key in expected} == pytest.approx(expected)
    assert tuple(ours) == METRICS


def test_spacing_is_row_then_column() -> None:
    right, down = box(20, 10, 1, 1), box(10, 20, 1, 1)
    start = box(10, 10, 1, 1)
    assert case_metrics(right, start, (3.0, 0.5))["hd95"] == pytest.approx(30.0)
    assert case_metrics(down, start, (3.0, 0.5))["hd95"] == pytest.approx(5.0)


def test_the_rule_for_empty_masks() -> None:
    empty, lesion = np.zeros((40, 50), dtype=bool), box(3, 4, 5, 6)
    both = case_metrics(empty, empty)
    missed, invented = case_metrics(empty, lesion), case_metrics(lesion, empty)
    for metric in ("dice", "iou", "precision", "recall", "f1"):
        assert (both[metric], missed[metric], invented[metric]) == (1.0, 0.0, 0.0), metric
    assert (both["accuracy"], missed["accuracy"], invented["accuracy"]) == (1.0, 0.985, 0.985)
    for result in (both, missed, invented):
        assert math.isnan(result["hd95"])
        assert math.isnan(result["assd"])


def test_symmetry_and_perfection() -> None:
    a, b = box(3, 4, 9, 6), box(5, 5, 9, 9)
    one, other = case_metrics(a, b, (0.3, 0.4)), case_metrics(b, a, (0.3, 0.4))
    for metric in ("dice", "iou", "accuracy", "hd95", "assd"):
        assert one[metric] == pytest.approx(other[metric])
    assert one["precision"] == other["recall"]
    perfect = case_metrics(a, a)
    assert [perfect[metric] for metric in METRICS] == [1, 1, 1, 1, 1, 1, 0, 0]


def test_views_and_integer_masks_are_read_alike() -> None:
    a, b = box(3, 4, 9, 6), box(5, 5, 9, 9)
    flipped = case_metrics(a[::-1, ::-1], b[::-1, ::-1])
    assert flipped == pytest.approx(case_metrics(a.astype(np.uint8) * 255, b.astype(np.float32)))


@pytest.mark.parametrize("shape", [(40, 49), (1, 40, 50)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="HW masks"):
        case_metrics(np.zeros(shape, dtype=bool), box(0, 0, 2, 2))
    with pytest.raises(ValueError, match="HW masks"):
        lesion_sensitivity(np.zeros(shape, dtype=bool), box(0, 0, 2, 2))


def test_lesions_found() -> None:
    first, second = box(2, 2, 10, 10), box(25, 30, 10, 10)
    label = first | second
    assert lesion_sensitivity(label, label) == (2, 2)
    assert lesion_sensitivity(first, label) == (1, 2)
    assert lesion_sensitivity(np.zeros_like(label), label) == (0, 2)
    assert lesion_sensitivity(first, np.zeros_like(label)) == (0, 0)


def test_a_lesion_needs_one_component_with_enough_iou() -> None:
    label = box(10, 10, 10, 10)
    assert lesion_sensitivity(box(10, 10, 1, 10), label) == (1, 1)  # IoU 10 / 100, just enough
    assert lesion_sensitivity(box(10, 10, 1, 9), label) == (0, 1)
    assert lesion_sensitivity(np.ones_like(label), label) == (0, 1)  # IoU 100 / 2000: flooding finds nothing
    specks = np.zeros_like(label)
    specks[10:20:2, 10:20:2] = True  # 25 single pixels inside the lesion
    assert lesion_sensitivity(specks, label) == (0, 1)
    assert lesion_sensitivity(specks, label, min_overlap=0.01) == (1, 1)
    with pytest.raises(ValueError, match="min_overlap"):
        lesion_sensitivity(label, label, min_overlap=0.0)


def test_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    label = np.eye(6, dtype=bool)
    assert lesion_sensitivity(label, label) == (1, 1)


def test_predicted_components_touch_at_corners_too():
    """A diagonal of 20 pixels is one component of IoU 1; cut at its corners it would be 20 of IoU 0.05."""
    diagonal = np.eye(20, dtype=bool)
    assert lesion_sensitivity(diagonal, diagonal) == (1, 1)
    straight = np.zeros_like(diagonal)
    straight[0] = True
    assert lesion_sensitivity(straight, diagonal) == (0, 1)
