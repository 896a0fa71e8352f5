"""TIFF in all its ways, against tifffile: read as stored, upright, white the largest; or refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.data.formats.source import count_frames
from mgcc_monai.errors import MGCCError

HEIGHT, WIDTH = 20, 30
ORIENTATION, SUBFILE = 274, 254
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


def _write(path, pixels, turn=1, **options):
    tifffile.imwrite(path, pixels, metadata=None, extratags=[(ORIENTATION, 3, 1, turn, True)], **options)
    return path


def _stored(path):
    """The values in the file, by tifffile, upright and with white the largest."""
    page = tifffile.TiffFile(path).pages[0]
    values = UPRIGHT[page.tags[ORIENTATION].value](page.asarray())
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return values
    return ~values if values.dtype.kind in "iub" else -values


def _image(values):
    """8-bit grey of any values: their own range, unless they have 8 bits."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)


def _values(kind):
    kind = np.dtype(kind)
    random = np.random.default_rng(kind.itemsize).random((HEIGHT, WIDTH))
    if kind.kind == "f":
        return (random * 9 - 3).astype(kind)
    limits = np.iinfo(kind)
    return (limits.min + random * 0.98 * (int(limits.max) - int(limits.min))).astype(kind)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("colour", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_whole_numbers_in_every_orientation_polarity_and_byte_order(tmp_path, kind, colour, order, compression):
    options = {"byteorder": order, "photometric": colour, "compression": compression}
    disc = np.zeros((HEIGHT, WIDTH), bool)
    disc[3:9, 4:20] = True
    limits = np.iinfo(kind)
    white, black = (limits.max, 0) if limits.min == 0 else (-1, 0)
    for turn in UPRIGHT:
        for more in ({}, {"tile": (16, 16)}):
            path = _write(tmp_path / f"{turn}{len(more)}.tif", _values(kind), turn, **options, **more)
            np.testing.assert_array_equal(read_image(path), _image(_stored(path)), err_msg=f"{turn} {more}")
        lesion, rest = (white, black) if colour == "minisblack" else (black, white)
        path = _write(tmp_path / f"m{turn}.tif", np.where(disc, lesion, rest).astype(kind), turn, **options)
        np.testing.assert_array_equal(read_mask(path), UPRIGHT[turn](disc), err_msg=f"mask {turn}")


@pytest.mark.parametrize("order", "<>")
def test_floats_one_bit_palettes_and_colours(tmp_path, order):
    colours = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    index = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    shown = np.moveaxis(colours[:, index], 0, -1).astype(np.uint8)
    for turn in UPRIGHT:
        for number, compression in enumerate((None, "deflate")):
            options = {"byteorder": order, "compression": compression}
            path = _write(tmp_path / f"f{turn}{number}.tif", _values("float32"), turn, **options)
            np.testing.assert_array_equal(read_image(path), _image(_stored(path)))
            expected = np.asarray(Image.fromarray(np.ascontiguousarray(UPRIGHT[turn](shown))).convert("L"))
            for scale in (257, 1):  # of 16 bits, and of 8 as some programs write them
                path = _write(
                    tmp_path / f"p{turn}{number}{scale}.tif",
                    index,
                    turn,
                    photometric="palette",
                    colormap=(colours * scale).astype(np.uint16),
                    **options,
                )
                np.testing.assert_array_equal(read_image(path), expected)
            for planar in ("contig", "separate"):
                pixels = shown if planar == "contig" else np.moveaxis(shown, -1, 0)
                options |= {"photometric": "rgb", "planarconfig": planar}
                path = _write(tmp_path / f"c{turn}{number}{planar}.tif", pixels, turn, **options)
                np.testing.assert_array_equal(read_image(path), expected)
        for colour, bit in (("minisblack", index > 99), ("miniswhite", index <= 99)):
            path = _write(
                tmp_path / f"b{turn}{colour}.tif", bit, turn, photometric=colour, bitspersample=1, byteorder=order
            )
            expected = UPRIGHT[turn](index > 99)
            np.testing.assert_array_equal(read_mask(path), expected)
            np.testing.assert_array_equal(read_image(path), expected * 255)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "group4"])
@pytest.mark.parametrize("white", [False, True])
def test_what_pillow_compresses(tmp_path, compression, white, texture):
    """Pillow inverts up to 8 bits as it writes WhiteIsZero, and no deeper values."""
    pixels = texture(1, HEIGHT, WIDTH)
    modes = {"jpeg": ["L"], "group4": ["1"]}.get(compression, ["1", "L", "I;16"])
    for mode in modes:
        picture = Image.fromarray(pixels.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(pixels)
        picture = picture if mode == "I;16" else picture.convert(mode)
        path = tmp_path / f"{mode[0]}.tif"
        picture.save(path, compression=compression, tiffinfo={262: 0} if white else {})
        expected = _image(np.asarray(picture)) if mode != "1" else np.asarray(picture).astype(np.uint8) * 255
        expected = 255 - expected if white and mode == "I;16" else expected
        assert np.abs(read_image(path).astype(int) - expected).max() <= (20 if compression == "jpeg" else 0)


def _twelve_bits(path, values, white):
    rows = b"".join(int("".join(f"{v:012b}" for v in row), 2).to_bytes(len(row) * 12 // 8, "big") for row in values)
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 0 if white else 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(rows))]
    directory = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(
        b"II*\0" + struct.pack("<L", 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + directory + bytes(4)
    )
    return path


def test_twelve_bits_and_bigtiff(tmp_path):
    values = np.random.default_rng(3).integers(0, 4096, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(read_image(_twelve_bits(tmp_path / "a.tif", values, False)), _image(values))
    np.testing.assert_array_equal(read_image(_twelve_bits(tmp_path / "b.tif", values, True)), _image(-values))
    path = _write(tmp_path / "c.tif", _values("uint16"), 6, bigtiff=True, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path), _image(_stored(path)))


def test_a_thumbnail_is_no_frame_and_pages_are(tmp_path, texture):
    pages = [texture(seed, HEIGHT, WIDTH) for seed in range(3)]
    for name, thumbnail in (("first", 0), ("last", 3)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for number in range(4):
                small = number == thumbnail
                page = pages[0][::4, ::4] if small else pages[number - (number > thumbnail)]
                file.write(np.ascontiguousarray(page), subfiletype=int(small), metadata=None, contiguous=False)
        assert count_frames(tmp_path / f"{name}.tif") == 3
        for number, page in enumerate(pages, 1):
            np.testing.assert_array_equal(read_image(tmp_path / f"{name}.tif", number), page)
    with tifffile.TiffWriter(tmp_path / "one.tif") as file:
        file.write(np.ascontiguousarray(pages[0][::4, ::4]), subfiletype=1, metadata=None)
        file.write(pages[1], metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "one.tif"), pages[1])


def test_extra_samples_are_dropped(tmp_path, texture):
    pixels, other = texture(1, HEIGHT, WIDTH), texture(2, HEIGHT, WIDTH)
    for extra in ("unspecified", "unassalpha"):
        for channels, colour in (([pixels, other], "minisblack"), ([pixels] * 3 + [other], "rgb")):
            path = _write(tmp_path / "x.tif", np.dstack(channels), photometric=colour, extrasamples=(extra,))
            np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.zeros((3, 8, 8), np.uint16), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.zeros((8, 8), np.float64), {}),
        (np.zeros((8, 8), np.float32), {"photometric": "miniswhite"}),
        (np.zeros((8, 8), np.uint64), {}),
        (np.zeros((8, 8), np.complex64), {}),
        (np.zeros((8, 8, 3), np.float32), {"photometric": "rgb"}),
        (np.zeros((8, 8), np.uint16), {"bigtiff": True, "byteorder": ">"}),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "cielab"}),
    ],
    ids="planes-of-16-bits float64 float-white uint64 complex rgb-floats big-endian-bigtiff lab".split(),
)
@pytest.mark.parametrize("read", [read_image, read_mask, count_frames])
def test_what_is_not_read_right_is_refused_in_one_line(tmp_path, pixels, options, read):
    path = _write(tmp_path / "x.tif", pixels, **options)
    if read is count_frames and options.get("photometric") == "cielab":
        return
    with pytest.raises(MGCCError) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_strips_that_are_missing_are_not_black(tmp_path):
    path = _write(tmp_path / "x.tif", _values("uint8"), rowsperstrip=5)
    page = tifffile.TiffFile(path).pages[0]
    content = bytearray(path.read_bytes())
    for name in ("StripOffsets", "StripByteCounts"):
        content[page.tags[name].offset + 4 : page.tags[name].offset + 8] = struct.pack("<L", 2)
    (tmp_path / "y.tif").write_bytes(content)
    with pytest.raises(MGCCError, match="y.tif: "):
        read_image(tmp_path / "y.tif")
