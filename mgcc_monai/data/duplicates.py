"""Near-duplicate search: groups images that show the same or nearly the same frame.

Each image is cut to its lit part and shrunk to a thumbnail, whose local contrast is normalised, so brightness, gain,
gamma and scanner hardly matter. A window of it is correlated with every shifted, flipped and slightly magnified window
of every other image. The score of a pair is the highest correlation found. Pairs at or above the threshold are joined.

Candidates are found first: every second shift, by the correlation of the windows' 64 leading principal components, at
a low bar. On BUSI the pairs below score at least 0.73 there; 1.6 candidates pass per pair and are compared in full.

Measured on 622 BUSI images (256 x 256) against a reference list of 177 pairs, counting pairs within joined groups:

    threshold       0.65   0.70   0.72   0.75   0.78   0.80   0.85   0.90
    precision      0.731  0.941  0.967  0.967  0.973  0.972  0.983  0.994
    recall         1.000  1.000  1.000  1.000  1.000  0.989  0.989  0.960

At 0.75 there are 6 more pairs than in the reference, and by eye all 6 are correct: two are one frame in another crop,
four neighbouring frames. Counting these, precision and recall are 1.000 from 0.72 to 0.76. Pairs between 0.65 and 0.72
are mostly other views of the same patient; only a list of patients can join them reliably.
Of 150 planted copies per kind, all were found after: half size, other aspect, brightness, gamma 0.5 and 2, JPEG at
quality 20, crops of 5 and 10 % per side, a fifth cut from one side, burned-in calipers, both flips; and crop, calipers,
gamma and JPEG combined. After a shift by 6 % of the width and 4 % of the height, 98.7 % were found.
Without the cut to the lit part, the screen around the images of DDTI joined 289 of 335; with it 8 pairs are left.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from mgcc_monai.data.formats.images import read_image

__all__ = [
    "CHECKED",
    "THRESHOLD",
    "Thumbnails",
    "duplicate_groups",
    "duplicate_pairs",
    "join_groups",
    "regroup",
    "thumbnail",
]

THRESHOLD = 0.75
CHECKED = 0.76
"""A pair across lists is a fault from this score on. It exceeds the threshold of `prepare`, so that rounding on another
machine does not turn pairs that `prepare` accepted into faults."""

_THUMBNAIL = 96  # pixels per side
_SIDE = 40  # side of the compared square, in pixels
_MARGIN = 3  # margin around the window: the range of shifts
# of height and width, for crops
_MAGNIFY = ((1.0, 1.15), (1.0, 1.3), (1.0, 1.45), (1.07, 1.07), (1.14, 1.14), (1.22, 1.22))
_BLACK, _DIM = 4, 0.04  # grey level, and share of the 99th percentile, up to which a pixel is black
_LIT, _LEAST_PART = 0.35, 0.3  # share of lit pixels in a row of the image; least share of the image that may be kept
_COMPONENTS = 64  # principal components of a window by which candidates are found
_CANDIDATE = 0.6  # their least correlation
_SAMPLE = 1000  # images that the components are learned from
_BLOCK = 128  # images, or pairs, that are compared at a time


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink a grey image, without a dark screen around it, to the thumbnail that the duplicate search uses.

    Args:
        image: uint8 HW.

    Returns:
        uint8, 96 x 96 pixels; an image of that size is returned unchanged.
    """
    if image.shape != (_THUMBNAIL, _THUMBNAIL):
        image = _lit_part(image)
    return np.asarray(Image.fromarray(image).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))


def _lit_part(image: np.ndarray) -> np.ndarray:
    """Cut off the rows and columns at the borders that are mostly black: a screen with its text is no likeness."""
    lit = image > max(_BLACK, _DIM * np.percentile(image, 99))
    columns = np.flatnonzero(lit.mean(axis=0) >= _LIT)
    rows = np.flatnonzero(lit[:, columns[0] : columns[-1] + 1].mean(axis=1) >= _LIT) if len(columns) else columns
    if not len(rows):
        return image
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part if part.size >= _LEAST_PART * image.size else image


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


def _variants(maps: list[np.ndarray], step: int = 1) -> Iterator[np.ndarray]:
    """Yield shifted windows, NHW: of plain and flipped maps every ``step``-th shift, of magnified ones half as many."""
    window = _SIDE - 2 * _MARGIN
    views = [maps[0], maps[0][:, :, ::-1], maps[0][:, ::-1]]
    for view, stride in [*((view, step) for view in views), *((view, 2 * step) for view in maps[1:])]:
        for top in range(0, view.shape[1] - window + 1, stride):
            for left in range(0, view.shape[2] - window + 1, stride):
                yield view[:, top : top + window, left : left + window]


def _maps(thumbnails: np.ndarray) -> list[np.ndarray]:
    return [_local_contrast(thumbnails, round(_SIDE * y), round(_SIDE * x)) for y, x in ((1.0, 1.0), *_MAGNIFY)]


def _centre(thumbnails: np.ndarray) -> np.ndarray:
    return _unit(_local_contrast(thumbnails, _SIDE, _SIDE)[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN])


def _code(windows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the windows' leading principal components, scaled to unit norm."""
    code = windows.reshape(len(windows), -1) @ basis
    return code / np.maximum(np.linalg.norm(code, axis=1, keepdims=True), 1e-6)


class Thumbnails:
    """Thumbnails in a temporary file: memory does not grow with their number.

    Args:
        images: uint8 HW arrays or paths to begin with.
    """

    def __init__(self, images: Iterable[np.ndarray | str | Path] = ()) -> None:
        self._file = tempfile.TemporaryFile()
        self._count, self._lock = 0, Lock()
        for image in images:
            self.append(thumbnail(image if isinstance(image, np.ndarray) else read_image(image)))

    def append(self, small: np.ndarray) -> None:
        """Add what :func:`thumbnail` returned."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(small.tobytes())
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Iterable[int]) -> np.ndarray:
        """Return the thumbnails of these numbers, uint8 NHW; safe to call from several threads."""
        size, parts = _THUMBNAIL**2, []
        with self._lock:
            for number in numbers:
                self._file.seek(number * size)
                parts.append(self._file.read(size))
        return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, _THUMBNAIL, _THUMBNAIL)


def duplicate_pairs(
    images: Thumbnails | Sequence[np.ndarray | str | Path],
    threshold: float = THRESHOLD,
    sides: Sequence[Hashable] | None = None,
    workers: int = 2,
) -> list[tuple[int, int]]:
    """Find the pairs of images that are near-duplicates of each other.

    Args:
        images: uint8 HW arrays or paths, or their thumbnails, N of them.
        threshold: the minimum score of a duplicate, over 0.6 and up to 1.
        sides: a side for each image; if given, only pairs across sides are compared.
        workers: number of threads.

    Returns:
        Index pairs (i, j), i < j, sorted.

    Raises:
        ValueError: for another threshold.
    """
    if not _CANDIDATE < threshold <= 1:
        raise ValueError(f"duplicates need a threshold over {_CANDIDATE} and up to 1, got {threshold}.")
    thumbnails = images if isinstance(images, Thumbnails) else Thumbnails(images)
    count = len(thumbnails)
    if count < 2:
        return []
    numbers: dict[Hashable, int] = {}
    side = np.array([numbers.setdefault(one, len(numbers)) for one in sides or range(count)])
    blocks = [range(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
    sample = _centre(thumbnails.read(range(0, count, -(-count // _SAMPLE))))

    # many small products: on a busy machine the BLAS threads of one product wait for each other
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        basis = np.linalg.svd(sample, full_matrices=False)[2][:_COMPONENTS].T.copy()
        codes = np.concatenate([*pool.map(lambda rows: _code(_centre(thumbnails.read(rows)), basis), blocks)])

        def propose(rows: range) -> list[tuple[int, int]]:
            moved = [_code(windows, basis) for windows in _variants(_maps(thumbnails.read(rows)), step=2)]
            found = []
            for first in range(0, count, 8 * _BLOCK):  # so memory does not grow with the count
                part = codes[first : first + 8 * _BLOCK].T
                best = np.zeros((len(rows), part.shape[1]), np.float32)
                for code in moved:
                    np.maximum(best, code @ part, out=best)
                best[side[rows.start : rows.stop, None] == side[None, first : first + 8 * _BLOCK]] = 0
                found += [(rows[i], first + int(j)) for i, j in np.argwhere(best >= _CANDIDATE)]
            return found

        proposed = {(min(pair), max(pair)) for pairs in pool.map(propose, blocks) for pair in pairs}
        both = sorted({*proposed, *((j, i) for i, j in proposed)})
        parts = [both[first : first + _BLOCK] for first in range(0, len(both), _BLOCK)]

        def compare(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
            moved, fixed = (np.unique([pair[k] for pair in pairs], return_inverse=True) for k in (0, 1))
            centre, best = _centre(thumbnails.read(fixed[0]))[fixed[1]], np.zeros(len(pairs), np.float32)
            for windows in _variants(_maps(thumbnails.read(moved[0]))):
                np.maximum(best, np.einsum("nd,nd->n", _unit(windows)[moved[1]], centre), out=best)
            return [(min(pair), max(pair)) for pair, score in zip(pairs, best, strict=True) if score >= threshold]

        return sorted({*_equal(thumbnails, side), *(pair for pairs in pool.map(compare, parts) for pair in pairs)})


def _equal(thumbnails: Thumbnails, side: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs of equal thumbnails; those of one value have no correlation."""
    seen: dict[bytes, list[int]] = {}
    for number in range(len(thumbnails)):
        others = seen.setdefault(sha256(thumbnails.read([number]).tobytes()).digest(), [])
        yield from ((other, number) for other in others if side[other] != side[number])
        others.append(number)


def _components(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def duplicate_groups(images: Thumbnails | Sequence[np.ndarray | str | Path], threshold: float = THRESHOLD) -> list[int]:
    """Label each image with its group of near-duplicates; an image without any is its own group.

    Args:
        images, threshold: as for :func:`duplicate_pairs`, N images.

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


def regroup(items: Sequence[Mapping[str, Any]], images: Thumbnails | Sequence[np.ndarray | str | Path]) -> list[str]:
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
