"""DICOM as scanners write it: decoding, regions, sizes, what is refused, and how much is held."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from io import BytesIO

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from mgcc_monai.data.formats import dicom
from mgcc_monai.data.formats.dicom import open_dicom
from mgcc_monai.data.formats.frames import frame_path, image_stem, list_images, locate
from mgcc_monai.data.formats.images import load_frame, read_image
from mgcc_monai.data.formats.source import count_frames
from mgcc_monai.errors import MGCCError

KINDS = """MONOCHROME2|MONOCHROME1|MONOCHROME2 16|RGB|RGB planar|PALETTE COLOR|PALETTE COLOR low|YBR_FULL|YBR_FULL_422
RLE MONOCHROME2|RLE MONOCHROME1|RLE RGB|RLE PALETTE COLOR|RLE YBR_FULL|JPEG2000 MONOCHROME2|JPEG2000 RGB"""
KINDS = KINDS.replace("\n", "|").split("|")


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_picture_and_a_frame_of_a_loop_are_exact_in_every_lossless_encoding(
    tmp_path, texture, dicom_files, kind
):
    loop = np.stack([texture(seed, 22, 36) for seed in range(3)])
    single = dicom_files.write_dicom(tmp_path / "single.dcm", loop[0], kind)
    np.testing.assert_array_equal(read_image(single), loop[0])
    many = dicom_files.write_dicom(tmp_path / "many.dcm", loop, kind)
    assert (count_frames(single), count_frames(many)) == (1, 3)
    for number in (3, 1, 2):
        np.testing.assert_array_equal(read_image(frame_path(many, number)), loop[number - 1])
    np.testing.assert_array_equal(read_image(many, "middle"), loop[1])


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_baseline_is_what_pillow_makes_of_the_stream(tmp_path, texture, dicom_files, colour):
    picture = texture(4)
    picture = np.dstack([picture, picture[::-1], 255 - picture]) if colour else picture
    expected = np.asarray(Image.open(BytesIO(dicom_files.jpeg(picture))).convert("L"))
    path = dicom_files.write_dicom(tmp_path / "x.dcm", np.stack([picture[:, ::-1], picture]), "JPEG")
    assert np.abs(read_image(path, 2).astype(int) - expected).max() <= 2  # two ways to round colours
    np.testing.assert_allclose(read_image(path, 2).mean(), expected.mean(), atol=0.6)


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless"])
@pytest.mark.parametrize("kind", ["MONOCHROME2", "RGB"])
def test_jpeg_lossless_and_jpeg_ls(tmp_path, texture, dicom_files, name, kind):
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(dicom_files.write_dicom(tmp_path / "plain.dcm", texture(5), kind)))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "x.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "x.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_image(tmp_path / "x.dcm"), texture(5))


def test_more_than_eight_bits_are_scaled_and_inverted(tmp_path, dicom_files):
    values = np.array([[0, 100, 4000, 4095]], np.uint16)
    for kind, expected in (("MONOCHROME2", [0, 6, 249, 255]), ("MONOCHROME1", [255, 249, 6, 0])):
        path = dicom_files.write_dicom(tmp_path / f"{kind}.dcm", np.zeros((1, 4), np.uint8), "MONOCHROME2 16")
        dataset = pydicom.dcmread(path)
        dataset.BitsStored, dataset.HighBit, dataset.PhotometricInterpretation = 12, 11, kind
        dataset.PixelData = values.tobytes()
        dataset.save_as(path)
        assert read_image(path).tolist() == [expected]


def test_a_region_gives_the_crop_and_the_size_of_a_pixel(tmp_path, texture, dicom_files):
    region = dicom_files.region
    regions = [region((0, 0, 9, 9), (0.5, 0.5)), region((20, 10, 69, 49), (0.02, -0.03))]
    strip = region((0, 50, 79, 59), (0.1, 0.1))
    strip.RegionSpatialFormat = 3  # a waveform
    path = dicom_files.write_dicom(tmp_path / "x.dcm", texture(6), SequenceOfUltrasoundRegions=[*regions, strip])
    cut = load_frame(path, crop="region")
    assert cut.box == (20, 10, 70, 50) and cut.whole == (60, 80)
    np.testing.assert_array_equal(cut.pixels, texture(6)[10:50, 20:70])
    assert cut.spacing == pytest.approx((0.3, 0.2))
    assert load_frame(path).spacing is None  # two sizes in one picture
    assert load_frame(path, crop=[30, 20, 5, 4]).spacing == pytest.approx((0.3, 0.2))
    assert load_frame(path, crop="30,20,5,4").pixels.shape == (4, 5)


def test_sizes_elsewhere_in_the_header(tmp_path, texture, dicom_files):
    write, measures, group = dicom_files.write_dicom, pydicom.Dataset(), pydicom.Dataset()
    assert load_frame(write(tmp_path / "a.dcm", texture(7))).spacing is None
    assert load_frame(write(tmp_path / "b.dcm", texture(7), PixelSpacing=[0.3, 0.2])).spacing == (0.3, 0.2)
    measures.PixelSpacing = [0.4, 0.1]
    group.PixelMeasuresSequence = [measures]
    sweep = write(tmp_path / "c.dcm", texture(7)[None].repeat(3, 0), SharedFunctionalGroupsSequence=[group])
    assert load_frame(sweep, 3).spacing == (0.4, 0.1)
    hertz = [dicom_files.region((0, 0, 79, 59), (0.02, 0.02), units=5)]
    assert load_frame(write(tmp_path / "d.dcm", texture(7), SequenceOfUltrasoundRegions=hertz)).spacing is None


def test_regions_of_a_larger_picture_are_not_believed_those_of_a_cropped_one_are(tmp_path, texture, dicom_files):
    both, below = (dicom_files.region((10, 5, right, 99), (0.02, 0.02)) for right in (120, 80))
    options = {"SequenceOfUltrasoundRegions": [both], "PixelSpacing": [0.2, 0.2]}
    shrunk = dicom_files.write_dicom(tmp_path / "a.dcm", texture(8), **options)
    assert open_dicom(shrunk).regions == () and load_frame(shrunk).spacing is None
    with pytest.raises(MGCCError, match="a.dcm: .*no ultrasound region.*--crop left,top"):
        load_frame(shrunk, crop="region")
    cropped = dicom_files.write_dicom(tmp_path / "b.dcm", texture(8), SequenceOfUltrasoundRegions=[below])
    assert load_frame(cropped, crop="region").box == (10, 5, 80, 60)
    assert load_frame(cropped).spacing == pytest.approx((0.2, 0.2))


def test_burned_in_text_is_refused_unless_it_can_be_cut_off(tmp_path, texture, dicom_files):
    def write(name, *regions):
        options = {"SequenceOfUltrasoundRegions": list(regions)} if regions else {}
        return dicom_files.write_dicom(tmp_path / name, texture(9), BurnedInAnnotation="YES", **options)

    part, whole = dicom_files.region((10, 10, 59, 49)), dicom_files.region((0, 0, 79, 59))
    for path, crop, cure in (
        (write("a.dcm", part), "none", "give --crop region or left,top,width,height"),
        (write("b.dcm"), "none", "give --crop left,top,width,height"),
        (write("c.dcm", whole), "region", "give --crop left,top,width,height"),
        (write("c.dcm", whole), [0, 0, 80, 60], "give --crop left,top,width,height"),
    ):
        with pytest.raises(MGCCError) as error:
            load_frame(path, crop=crop)
        assert str(path) in str(error.value) and "burned in" in str(error.value) and str(error.value).endswith(cure)
    assert read_image(write("a.dcm", part), crop="region").shape == (40, 50)
    assert read_image(write("b.dcm"), crop=[5, 6, 7, 8]).shape == (8, 7)


@pytest.mark.parametrize("crop", ["regions", "1,2,3", [1, 2, 0, 4], [-1, 0, 5, 5], "a,b,c,d", 7])
def test_a_crop_that_is_none(tmp_path, texture, dicom_files, crop):
    with pytest.raises(MGCCError, match="--crop .* is no choice"):
        read_image(dicom_files.write_dicom(tmp_path / "x.dcm", texture(1)), crop=crop)


def test_a_crop_beyond_the_picture_and_a_frame_beyond_the_loop(tmp_path, texture, dicom_files):
    path = dicom_files.write_dicom(tmp_path / "x.dcm", texture(1)[None].repeat(3, 0))
    for options, told in (
        ({"frame": 1, "crop": [40, 0, 41, 10]}, "80 x 60 pixels"),
        ({"frame": 4}, "3 frames, so there is no frame 4"),
        ({}, "3 frames, where one frame is expected"),
        ({"frame": "last"}, "--frame last"),
    ):
        with pytest.raises(MGCCError, match=told):
            read_image(path, **options)


def test_files_that_cannot_be_read_are_named_with_the_cure(tmp_path, texture, dicom_files, monkeypatch):
    path = dicom_files.write_dicom(tmp_path / "x.dcm", texture(2))
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "text.dcm").write_text("no DICOM at all" * 20)
    report = dicom_files.write_dicom(tmp_path / "report.dcm", texture(2))
    dataset = pydicom.dcmread(report)
    del dataset.Rows
    dataset.save_as(report)
    video = dicom_files.write_dicom(tmp_path / "video.dcm", texture(2))
    dataset = pydicom.dcmread(video)
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = pydicom.uid.MPEG4HP41, encapsulate([b"\0\0\0\1gh"])
    dataset.save_as(video)
    for name, told in (("x", "damaged or truncated"), ("text", "not a DICOM file"), ("report", "without a picture")):
        with pytest.raises(MGCCError, match=f"{name}.dcm: .*{told}.*; "):
            read_image(tmp_path / f"{name}.dcm")
    with pytest.raises(MGCCError, match="video.dcm: compressed as MPEG-4.*not read here; export it"):
        read_image(video)
    plain = dicom_files.write_dicom(tmp_path / "plain.dcm", texture(2), "JPEG2000 MONOCHROME2")
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(MGCCError, match=r"JPEG 2000.*no decoder.*pip install 'mgcc_monai\[dicom\]'"):
        read_image(plain)
    dicom._cached.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MGCCError, match=r"plain.dcm: .*pip install 'mgcc_monai\[dicom\]'"):
        read_image(plain)


def test_files_without_a_suffix_are_found_by_what_is_in_them(tmp_path, texture, dicom_files):
    for name in ("1.2.840.7", "1.2.840.8", "IM_0001", "DICOMDIR", "a.DCM"):
        dicom_files.write_dicom(tmp_path / name, texture(3))
    (tmp_path / "notes").write_text("x" * 200)
    found = list_images(tmp_path)
    assert [path.name for path in found] == ["1.2.840.7", "1.2.840.8", "IM_0001", "a.DCM"]
    assert [image_stem(path) for path in found] == ["1.2.840.7", "1.2.840.8", "IM_0001", "a"]
    assert frame_path(found[0]).name == "1.2.840.7.dcm" and frame_path(found[3], 12).name == "a_frame0012.DCM"
    for path in found:
        assert locate(frame_path(path)) == (path, None) and locate(frame_path(path, 12)) == (path, 12)


@pytest.mark.parametrize("table", [True, False])
def test_a_loop_of_3600_frames_is_streamed(tmp_path, texture, dicom_files, table):
    """Neither the file (over 20 MB) nor its pixels (over 250 MB) are ever held."""
    picture = texture(4, 240, 320)
    path = dicom_files.write_dicom(tmp_path / "loop.dcm", picture[None], "JPEG")
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 3600
    other = dicom_files.jpeg(picture[::-1])
    streams = [other] * 3599 + [dicom_files.jpeg(picture)]
    dataset.PixelData = encapsulate(streams, has_bot=table)
    dataset.save_as(path)
    del dataset, streams
    assert os.path.getsize(path) > 20_000_000
    read_image(path, 1)
    tracemalloc.start()
    begin = time.process_time()
    assert count_frames(path) == 3600
    frames = [read_image(frame_path(path, number)) for number in (1, 1800, 3600)]
    taken, (_, peak) = time.process_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000 and taken < 20
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.abs(frames[2].astype(int) - picture).mean() < 4 < np.abs(frames[0].astype(int) - picture).mean()
