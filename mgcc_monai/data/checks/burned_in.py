"""Detect caliper crosses and lines of text that a scanner burned into an image. Rough; good enough for a warning.

On 622 BUSI images (256 x 256), two or more crosses are found in 57 images and text in 71. By eye, all 57 do have
calipers, and all 70 of the text images inspected do have text. Missed marks were not counted. Single crosses, lines
between calipers and words of fewer than three letters are always missed.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects, label, uniform_filter

__all__ = ["crosses", "text_lines"]

_ARMS = (3, 4, 6, 8)  # of a cross, in pixels from its centre
_ARM_LEVEL = 120  # lowest grey level of an arm
_CONTRAST = 50  # grey levels between the arms and each quadrant between them
_INK_LEVEL = 170  # lowest grey level of a letter
_INK_CONTRAST = 60  # grey levels between a letter and its surroundings
_LETTERS = 3  # fewest letters of a line


def crosses(image: np.ndarray) -> list[tuple[int, int]]:
    """Find upright bright crosses, such as the ends of calipers.

    All pixels of the four equal arms are bright, and each quadrant between them is much darker.

    Args:
        image: uint8 HW.

    Returns:
        Row and column of each centre, in pixels.
    """
    found: list[tuple[int, int]] = []
    down, across = image.copy(), image.copy()  # minimum over the pixels up to `arm` away
    for arm in range(1, min(max(_ARMS), (min(image.shape) - 2) // 4) + 1):
        np.minimum(down[arm:], image[:-arm], out=down[arm:])
        np.minimum(down[:-arm], image[arm:], out=down[:-arm])
        np.minimum(across[:, arm:], image[:, :-arm], out=across[:, arm:])
        np.minimum(across[:, :-arm], image[:, arm:], out=across[:, :-arm])
        if arm not in _ARMS:
            continue
        arms = np.minimum(down, across)
        inner = arms[arm:-arm, arm:-arm]
        # the centre of a cross is brighter than points beside it: their arms run through its dark quadrants
        upper, lower = (
            np.maximum(line[:, arm - 2 : -arm - 2], line[:, arm + 2 : 2 - arm or None])
            for line in (arms[arm - 2 : -arm - 2], arms[arm + 2 : 2 - arm or None])
        )
        aside = np.minimum(np.maximum(upper, lower), 255 - _CONTRAST // 2) + _CONTRAST // 2
        likely = np.flatnonzero((inner >= aside) & (inner >= _ARM_LEVEL))
        rows, columns = np.divmod(likely, inner.shape[1])
        size, levels = 2 * arm + 1, inner[rows, columns].astype(float)
        patches = np.lib.stride_tricks.sliding_window_view(image, (size, size))[rows, columns]
        quadrants = [
            patches[:, y, x].mean((1, 2))
            for y in (slice(arm - 1), slice(arm + 2, None))
            for x in (slice(arm - 1), slice(arm + 2, None))
        ]
        contrast = levels - np.max(quadrants, 0)
        stands_out = (contrast >= _CONTRAST) & (levels - patches.mean((1, 2)) >= _CONTRAST // 2)
        for row, column in (np.stack([rows, columns], 1)[stands_out] + arm).tolist():
            if all(max(abs(row - r), abs(column - c)) > size for r, c in found):
                found.append((row, column))
    return found


def _letters(image: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return boxes (left, right, top, bottom) of bright, letter-shaped pieces that stand out on all sides."""
    ink = (image >= _INK_LEVEL) & (image.astype(np.int16) - uniform_filter(image, 15) >= _INK_CONTRAST)
    pieces, _ = label(ink, np.ones((3, 3)))
    boxes = []
    for number, (rows, columns) in enumerate(find_objects(pieces), 1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not (5 <= height <= 24 and 1 <= width <= 1.6 * height):
            continue
        around = np.s_[max(rows.start - 2, 0) : rows.stop + 2, max(columns.start - 2, 0) : columns.stop + 2]
        inside = pieces[around] == number
        contrast = image[around][inside].mean() - image[around][pieces[around] == 0].mean()
        if contrast >= _INK_CONTRAST:
            boxes.append((columns.start, columns.stop, rows.start, rows.stop))
    return sorted(boxes)


def text_lines(image: np.ndarray) -> list[tuple[int, int]]:
    """Find lines of three or more bright letters of one height on one baseline.

    Args:
        image: uint8 HW.

    Returns:
        Row and column of each line's lower left corner, in pixels.
    """
    lines: list[list[tuple[int, int, int, int]]] = []
    for box in _letters(image):
        left, _, top, bottom = box
        for line in lines:
            _, end, upper, lower = line[-1]
            near = -1 <= left - end <= 0.9 * (lower - upper)
            if near and abs(bottom - lower) <= 1 and abs(top - upper) <= 1:
                line.append(box)
                break
        else:
            lines.append([box])
    return [(line[0][3], line[0][0]) for line in lines if len(line) >= _LETTERS]
