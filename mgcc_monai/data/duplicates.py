"""Near-duplicate search: groups images that show the same or nearly the same frame.

Each image is shrunk to a thumbnail and its local contrast is normalised, so brightness, gain, gamma and scanner hardly
matter. A window of it is correlated with every shifted, flipped and slightly magnified window of every other image.
The score of a pair is the highest correlation found. Pairs at or above the threshold are joined.

Measured on 622 BUSI images (256 x 256) against a reference list of 177 pairs, counting pairs within joined groups:

    threshold       0.65   0.70   0.72   0.75   0.78   0.80   0.85   0.90
    precision      0.731  0.941  0.967  0.967  0.973  0.972  0.983  0.994
    recall         1.000  1.000  1.000  1.000  1.000  0.989  0.989  0.960

At 0.75 there are 6 more pairs than in the reference, and by eye all 6 are correct: two are the same frame in another
crop (benign 213 and 253, malignant 11 and 113), four are neighbouring frames of one lesion or region (malignant 85 and
86, 27 and 28; benign 125 and 126; normal 9 and 10). Counting these, precision and recall are 1.000 from 0.72 to 0.76.
The lowest true pair scores 0.774, the highest pair not joined 0.719. Pairs between 0.65 and 0.72 are mostly other views
of the same patient; only a list of patients can join them reliably.
Of 150 planted copies per kind, all were found after: half size, other aspect, brightness, gamma 0.5 and 2, JPEG at
quality 20, crops of 5 and 10 % per side, a fifth cut from one side, burned-in calipers, both flips; and crop, calipers,
gamma and JPEG combined. After a shift by 6 % of the width and 4 % of the height, 98.7 % were found.
Time: 10 s for 622 images on one busy core; it grows with the square of the number of images.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from mgcc_monai.data.formats.images import read_image

__all__ = ["CHECKED", "THRESHOLD", "duplicate_groups", "duplicate_pairs", "join_groups", "regroup", "thumbnail"]

THRESHOLD = 0.75
CHECKED = 0.76
"""A pair across lists is a fault from this score on. It exceeds the threshold of `prepare`, so that rounding on another
machine does not turn pairs that `prepare` accepted into faults."""

_THUMBNAIL = 96  # pixels per side
_SIDE = 40  # side of the compared square, in pixels
_MARGIN = 3  # margin around the window: the range of shifts
_MAGNIFY = (
    (1.0, 1.15),
    (1.0, 1.3),
    (1.0, 1.45),
    (1.07, 1.07),
    (1.14, 1.14),
    (1.22, 1.22),
)  # of height and width, for crops
_BLOCK = 512  # images per block: memory grows linearly with the number of images


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink a grey image to the thumbnail that the duplicate search uses.

    Args:
        image: uint8 HW.

    Returns:
        uint8, 96 x 96 pixels; an image of that size is returned unchanged.
    """
    return np.asarray(Image.fromarray(image).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))


def _local_contrast(thumbnails: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the band-passed log intensity divided by its local deviation, float32 NHW."""
    shrunk = [np.asarray(Image.fromarray(t).resize((width, height), Image.Resampling.BOX)) for t in thumbnails]
    log = np.log1p(np.stack(shrunk).astype(np.float32))
    band = gaussian_filter(log, (0, 1.0, 1.0)) - gaussian_filter(log, (0, 3.5, 3.5))
    return band / np.sqrt(gaussian_filter(band * band, (0, 5.0, 5.0)) + 1e-3)


def _unit(windows: np.ndarray) -> np.ndarray:
    """Return rows of zero mean and unit norm; a constant window becomes zeros."""
    rows = windows.reshape(len(windows), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _variants(maps: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield every shifted window: all shifts of plain and flipped maps, every second shift of magnified ones."""
    window = _SIDE - 2 * _MARGIN
    views = [(maps[0], 1), (maps[0][:, :, ::-1], 1), (maps[0][:, ::-1], 1), *((m, 2) for m in maps[1:])]
    for view, step in views:
        for top in range(0, view.shape[1] - window + 1, step):
            for left in range(0, view.shape[2] - window + 1, step):
                yield _unit(view[:, top : top + window, left : left + window])


def duplicate_pairs(
    images: Sequence[np.ndarray | str | Path],
    threshold: float = THRESHOLD,
    sides: Sequence[Hashable] | None = None,
    workers: int = 1,
) -> list[tuple[int, int]]:
    """Find the pairs of images that are near-duplicates of each other.

    Args:
        images: uint8 HW arrays or paths, N of them.
        threshold: the minimum score of a duplicate, in (0, 1].
        sides: a side for each image; if given, only pairs across sides are searched, which is faster.
        workers: number of threads.

    Returns:
        Index pairs (i, j), i < j, sorted.
    """
    if len(images) < 2:
        return []
    thumbnails = np.stack([thumbnail(i if isinstance(i, np.ndarray) else read_image(i)) for i in images])
    maps = [_local_contrast(thumbnails, round(_SIDE * y), round(_SIDE * x)) for y, x in ((1.0, 1.0), *_MAGNIFY)]
    centre = _unit(maps[0][:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN])
    same = np.unique(thumbnails.reshape(len(thumbnails), -1), axis=0, return_inverse=True)[1].ravel()
    every, numbers = np.arange(len(images)), {}
    side = np.array([numbers.setdefault(s, len(numbers)) for s in sides or [None] * len(images)])
    parts = [(every[side == s], every[side != s] if sides else every) for s in range(len(numbers))]
    blocks = [(rows[k : k + _BLOCK], others) for rows, others in parts for k in range(0, len(rows), _BLOCK)]

    def search(block: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
        rows, others = block
        chosen = centre[rows]
        best = (same[rows, None] == same[None, others]).astype(np.float32)
        for windows in _variants([m[others] for m in maps]):
            np.maximum(best, chosen @ windows.T, out=best)
        return [(int(rows[i]), int(others[j])) for i, j in np.argwhere(best >= threshold) if rows[i] != others[j]]

    # many small products: on a busy machine the BLAS threads of one product wait for each other
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return sorted({(min(pair), max(pair)) for pairs in pool.map(search, blocks) for pair in pairs})


def _components(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def duplicate_groups(images: Sequence[np.ndarray | str | Path], threshold: float = THRESHOLD) -> list[int]:
    """Label each image with its group of near-duplicates; an image without any is its own group.

    Args:
        images: uint8 HW arrays or paths, N of them.
        threshold: the minimum score of a duplicate, in (0, 1].

    Returns:
        N labels, numbered from 0 in the order of the images.
    """
    labels = _components(len(images), duplicate_pairs(images, threshold)) if len(images) else []
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


def join_groups(
    duplicate_labels: Sequence[Hashable], patient_ids: Sequence[Hashable | None] | None = None
) -> list[str]:
    """Group images that share a near-duplicate label or a patient, directly or through other images.

    Args:
        duplicate_labels: a label for each image, images sorted by name; groups are numbered in this order.
        patient_ids: a patient for each image, None if unknown; None if there is no list of patients.

    Returns:
        A group name for each image: ``g0001``, ``g0002`` ...

    Raises:
        ValueError: if the two lists differ in length.
    """
    patients = [None] * len(duplicate_labels) if patient_ids is None else patient_ids
    first: dict[tuple[str, Hashable], int] = {}
    pairs = []
    for index, (label, patient) in enumerate(zip(duplicate_labels, patients, strict=True)):
        pairs.append((first.setdefault(("duplicate", label), index), index))
        if patient is not None:
            pairs.append((first.setdefault(("patient", patient), index), index))
    numbers: dict[int, int] = {}
    joined = _components(len(patients), pairs) if pairs else []
    return [f"g{numbers.setdefault(int(label), len(numbers) + 1):04d}" for label in joined]


def regroup(items: Sequence[Mapping[str, Any]], images: Sequence[np.ndarray | str | Path]) -> list[str]:
    """Join groups that share near-duplicates which would be a fault at :data:`CHECKED`.

    Args:
        items: items with ``group``.
        images: the image of each item, as :func:`duplicate_pairs` takes them.

    Returns:
        A group for each item; joined groups have the name of the first.
    """
    names: dict[str, str] = {}
    joined = join_groups(duplicate_groups(images, CHECKED - 0.001), [item["group"] for item in items])
    return [names.setdefault(group, item["group"]) for group, item in zip(joined, items, strict=True)]
