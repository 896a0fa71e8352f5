"""Read the formats that Pillow opens: PNG, JPEG, BMP, TIFF, WebP and GIF."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mgcc_monai.data.formats.limits import check_pixels
from mgcc_monai.data.formats.tiff import Tiff, is_tiff, page_numbers
from mgcc_monai.errors import MGCCError, one_line

__all__ = ["PillowFile", "open_pillow"]

_ORIENTATION = 0x0112


@dataclass
class PillowFile:
    """An open file; its pixels have not been read.

    Args:
        path: the file.
        image: the Pillow image, at the first frame.
        pages: the numbers of the frames that are images.
    """

    path: Path
    image: Image.Image
    pages: Sequence[int]

    @property
    def format(self) -> str:
        """Pillow's name for the format."""
        return self.image.format or ""

    @property
    def mode(self) -> str:
        """Pillow's mode."""
        return self.image.mode

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pages)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame, as stored."""
        return self.image.height, self.image.width

    @property
    def orientation(self) -> int:
        """The EXIF tag; 1 if the image is upright or has none."""
        if self.format == "PNG" and not {"exif", "Raw profile type exif"} & self.image.info.keys():
            return 1  # else Pillow would read the whole file
        return int(self.image.getexif().get(_ORIENTATION, 1))

    def picture(self, index: int) -> Image.Image | np.ndarray:
        """Read a frame, upright; the others stay on disk.

        Returns:
            The picture; HW values if the file has more than 8 bits or signed values.

        Raises:
            MGCCError: if its colour mode is not supported.
        """
        picture = self.image
        if self.frames > 1:
            picture.seek(self.pages[index])
        check_pixels(self.path, *picture.size)
        if picture.mode in ("LAB", "HSV"):
            raise MGCCError(f"{self.path}: colours as {picture.mode}, not read; export it again as grey or RGB")
        picture.load()
        if isinstance(picture, Tiff) and picture.deep and picture.mode in ("L", "F") or picture.mode[0] == "I":
            return picture.values() if isinstance(picture, Tiff) else np.asarray(ImageOps.exif_transpose(picture))
        upright = ImageOps.exif_transpose(picture.convert("LA") if picture.mode == "La" else picture)
        return picture if upright is None else upright

    def affine(self, index: int) -> None:
        """Return None: these files have no affine."""

    def spacing_in(self, box: tuple[int, int, int, int]) -> None:
        """Return None: the pixel size is not read from these files."""


@contextmanager
def open_pillow(path: Path) -> Iterator[PillowFile]:
    """Open a file without reading its pixels.

    A camera's JPEG with an appended preview (MPO) counts as one frame; thumbnails in a TIFF are not counted.

    Args:
        path: the file.

    Raises:
        MGCCError: if it is damaged, not an image or too large; also in place of errors raised in the ``with`` body.
    """
    tiff = False
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            tiff = is_tiff(file.read(4))
            file.seek(0)
            with Tiff(file) if tiff else Image.open(file) as picture:
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                pages = page_numbers(path) if tiff and frames > 1 else range(frames)
                if pages[0]:
                    picture.seek(pages[0])
                yield PillowFile(path, picture, pages)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MGCCError(f"{path}: too many pixels ({one_line(error)}); make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise MGCCError(f"{path}: not an image that can be read; export it again as PNG") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        if tiff and isinstance(error, SyntaxError):
            raise MGCCError(f"{path}: a TIFF that is not read ({one_line(error)}); export it as PNG") from error
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error
