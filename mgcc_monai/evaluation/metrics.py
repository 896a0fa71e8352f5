"""How well one predicted mask agrees with one reference mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from skimage.measure import label as connected_components

__all__ = ["METRICS", "case_metrics", "lesion_sensitivity"]

METRICS = ("dice", "iou", "precision", "recall", "f1", "accuracy", "hd95", "assd")


def _masks(pred: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pred, label = np.asarray(pred, dtype=bool), np.asarray(label, dtype=bool)
    if pred.ndim != 2 or pred.shape != label.shape or pred.size == 0:
        raise ValueError(f"pred and label must be HW masks of one shape, but have {pred.shape} and {label.shape}.")
    return pred, label


def _ratio(part: int, whole: int, both_empty: bool) -> float:
    """``part / whole``; where that is 0/0, 1 if both masks are empty and else 0."""
    return part / whole if whole else float(both_empty)


def case_metrics(pred: np.ndarray, label: np.ndarray, spacing: Sequence[float] | None = None) -> dict[str, float]:
    """Overlap, detection and surface figures of one image.

    With both masks empty every ratio is 1; with one of them empty Dice, IoU, F1, precision and recall are 0, also
    where precision (nothing predicted) or recall (nothing to find) is 0/0: no credit for saying nothing. The surface
    distances are NaN where either mask is empty, since there is no surface to measure to. F1 of two masks is their
    Dice; it is listed because the paper's tables do.

    Args:
        pred: HW mask, nonzero is lesion.
        label: HW mask, nonzero is lesion.
        spacing: (row, column) size of a pixel in mm; without it distances are in pixels.

    Returns:
        dice, iou, precision, recall, f1, accuracy in [0, 1]; hd95 (the larger of the two directed 95th percentiles)
        and assd (mean over the surface pixels of both masks) in mm or pixels.

    Raises:
        ValueError: if the two are not HW masks of the same shape.

    Source: Taha and Hanbury 2015, BMC Medical Imaging 15:29; the surface distances are MONAI's.
    """
    pred, label = _masks(pred, label)
    both = int(np.count_nonzero(pred & label))
    predicted, wanted = int(np.count_nonzero(pred)), int(np.count_nonzero(label))
    empty = predicted + wanted == 0
    dice = _ratio(2 * both, predicted + wanted, empty)
    result = {
        "dice": dice,
        "iou": _ratio(both, predicted + wanted - both, empty),
        "precision": _ratio(both, predicted, empty),
        "recall": _ratio(both, wanted, empty),
        "f1": dice,
        "accuracy": 1.0 - (predicted + wanted - 2 * both) / pred.size,
        "hd95": float("nan"),
        "assd": float("nan"),
    }
    if predicted and wanted:
        masks = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (pred, label)]
        unit = None if spacing is None else [float(length) for length in spacing]
        result["hd95"] = float(compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=unit))
        result["assd"] = float(
            compute_average_surface_distance(*masks, include_background=True, symmetric=True, spacing=unit)
        )
    return result


def lesion_sensitivity(pred: np.ndarray, label: np.ndarray, min_overlap: float = 0.1) -> tuple[int, int]:
    """How many lesions of the reference were found, of how many.

    A lesion is an 8-connected component. A lesion of the reference is found when some one predicted component has an
    IoU of at least ``min_overlap`` with it; so a prediction that covers the whole image finds no small lesion, and
    specks inside a lesion do not find it. One predicted component may find two lesions that it joins.

    Args:
        pred: HW mask, nonzero is lesion.
        label: HW mask, nonzero is lesion.
        min_overlap: least IoU, in (0, 1].

    Returns:
        (found, total); (0, 0) where the reference is empty.

    Raises:
        ValueError: if the two are not HW masks of the same shape, or ``min_overlap`` is not in (0, 1].

    Source: the hit criterion (IoU of at least 0.10) of the PI-CAI challenge, Saha et al. 2024, Lancet Oncology 25:879.
    """
    pred, label = _masks(pred, label)
    if not 0 < min_overlap <= 1:
        raise ValueError(f"min_overlap must lie in (0, 1], but is {min_overlap}.")
    found_in, lesions = connected_components(pred, connectivity=2), connected_components(label, connectivity=2)
    total, count = int(lesions.max()), int(found_in.max()) + 1
    # overlap[i, j]: pixels that are in lesion i of the reference and in component j of the prediction
    overlap = np.bincount((lesions * count + found_in).ravel(), minlength=(total + 1) * count).reshape(-1, count)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    hits = overlap[1:, 1:] / union[1:, 1:] >= min_overlap
    return int(hits.any(axis=1).sum()), total
