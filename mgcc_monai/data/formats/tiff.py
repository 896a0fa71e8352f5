"""Read TIFF through Pillow; correct or refuse what Pillow reads wrongly."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

__all__ = ["Tiff", "is_tiff", "page_numbers"]

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _COLOURS, _FORMAT = 258, 262, 277, 284, 320, 339
_SUBFILE, _OLD_SUBFILE = 254, 255
_REDUCED_OR_MASK = 1 | 4  # bits of _SUBFILE: a reduced-resolution copy, a transparency mask of another page
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


class Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF file. Open it with a file object: given a path, Pillow scrambles turned uncompressed pages.

    Pillow does not support 16-bit big-endian WhiteIsZero or unsigned 32-bit big-endian values, inverts only up to 8
    bits, reads signed bytes as unsigned, and swaps the bytes of compressed big-endian pages once too often. Such pages
    are opened in a mode that Pillow supports, and :meth:`values` returns the stored values.
    """

    def _setup(self) -> None:
        tags = self.tag_v2
        bits = tags.get(_BITS, (1,))[0]
        kind = tags.get(_FORMAT, (_UNSIGNED,))[0]
        self.deep = bits > 8 or kind != _UNSIGNED
        self.white_is_zero = tags.get(_PHOTOMETRIC) == 0
        if tags.get(_PLANAR) == 2 and bits > 8 and tags.get(_SAMPLES, 1) > 1:
            raise SyntaxError(f"colours of {bits} bits in separate planes")
        if self.deep and self.white_is_zero:
            if kind == _FLOAT:
                raise SyntaxError("WhiteIsZero of floating-point values")
            tags[_PHOTOMETRIC] = 1
        if (bits, kind) == (32, _UNSIGNED):
            tags[_FORMAT] = (_SIGNED,)
        if tags.get(_COLOURS) and max(tags[_COLOURS]) < 256:  # some programs write 8-bit colours instead of 16-bit
            tags[_COLOURS] = tuple(257 * value for value in tags[_COLOURS])
        super()._setup()
        covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in self.tile)
        if covered < self._tile_size[0] * self._tile_size[1]:
            raise SyntaxError("strips or tiles are missing")
        size = 2 if bits == 12 else max(bits // 8, 1)
        self._type = np.dtype(f"{'f' if kind == _FLOAT else 'i' if kind == _SIGNED else 'u'}{size}")
        swapped = self.use_load_libtiff and tags.prefix == b"MM" and self._type not in (np.uint8, np.int8, np.uint16)
        self._swapped, self._largest = swapped, 2**bits - 1

    def values(self) -> np.ndarray:
        """Return the HW values of a grey page with more than 8 bits or signed values; white is the largest."""
        values = np.asarray(self)
        same_size = values.dtype.itemsize == self._type.itemsize
        values = (
            values.view(self._type.newbyteorder(values.dtype.byteorder)) if same_size else values.astype(self._type)
        )
        values = values.byteswap() if self._swapped else values
        if not self.white_is_zero:
            return values
        return -1 - values if values.dtype.kind == "i" else self._largest - values


def is_tiff(head: bytes) -> bool:
    """Return whether a file is TIFF, given its first four bytes."""
    return head.startswith(tuple(TiffImagePlugin.PREFIXES))


def _is_picture(tags: Any) -> bool:
    return not tags.get(_SUBFILE, 0) & _REDUCED_OR_MASK and tags.get(_OLD_SUBFILE) != 2


@lru_cache(maxsize=64)
def _cached_pages(path: Path, changed: int, size: int) -> tuple[int, ...]:
    with path.open("rb") as file, Tiff(file) as picture:
        pages = []
        for number in range(picture.n_frames):
            picture.seek(number)
            pages += [number] if _is_picture(picture.tag_v2) else []
        return tuple(pages or range(picture.n_frames))


def page_numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers, from 0, of the pages that are images, not thumbnails or transparency masks."""
    state = path.stat()
    return _cached_pages(path, state.st_mtime_ns, state.st_size)
