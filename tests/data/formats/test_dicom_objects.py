"""DICOM that holds no picture, or describes it wrongly: told plainly, and never read wrong."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID

from mgcc_monai.data.formats.dicom import not_a_picture, open_dicom
from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.data.formats.source import count_frames
from mgcc_monai.data.items import images_to_segment
from mgcc_monai.errors import MGCCError

JARGON = ("force", "Error", "attribute", "0x", "dataset", "decode", "None", "transfer_syntax_uid")


def _change(path, change=None, **elements):
    """Set elements of a file; None removes one."""
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    if change:
        change(dataset)
    dataset.save_as(path)
    return path


def _refused(path, *words):
    """One plain line, whoever reads."""
    for read in (open_dicom, read_image, read_mask, count_frames):
        with pytest.raises(MGCCError) as error:
            read(path)
        told = str(error.value)
        assert told.startswith(f"{path}: ") and "\n" not in told and "; " in told
        assert all(word in told for word in words), told
        assert not any(word in told.removeprefix(str(path)) for word in JARGON), told
    return told


OTHERS = """Segmentation Storage|RT Structure Set Storage|RT Dose Storage|Comprehensive SR Storage|Raw Data Storage
Grayscale Softcopy Presentation State Storage|Encapsulated PDF Storage|12-lead ECG Waveform Storage
Parametric Map Storage|Key Object Selection Document Storage|Media Storage Directory Storage"""


@pytest.mark.parametrize("name", OTHERS.replace("\n", "|").split("|"))
def test_objects_that_hold_no_picture(tmp_path, texture, dicom_files, name, caplog):
    uid = next(key for key, value in pydicom.uid.UID_dictionary.items() if value[0] == name)
    path = _change(dicom_files.write_dicom(tmp_path / "x.dcm", texture(1)), SOPClassUID=UID(uid))
    assert not_a_picture(path) == name
    _refused(path, f"without a picture ({name})", "remove it")
    with pytest.raises(MGCCError, match="holds no image"):
        images_to_segment(tmp_path)
    assert f"1 file not read: 1 {name}" in caplog.text


def test_objects_known_by_their_modality_or_by_having_no_rows(tmp_path, texture, dicom_files):
    newer = "1.2.840.10008.5.1.4.1.1.66.7"  # of which older tables do not know
    path = dicom_files.write_dicom(tmp_path / "seg.dcm", texture(1), Modality="SEG")
    assert "SEG" in not_a_picture(_change(path, SOPClassUID=UID(newer))) or not_a_picture(path).endswith("Storage")
    private = UID("1.3.46.670589.2.3.1.1")
    path = _change(dicom_files.write_dicom(tmp_path / "private.dcm", texture(1)), SOPClassUID=private)
    assert not_a_picture(path) is None
    np.testing.assert_array_equal(read_image(path), texture(1))
    assert not_a_picture(_change(path, Rows=None)) == "modality US"


@pytest.mark.parametrize(
    "name", ["Secondary Capture Image Storage", "Enhanced US Volume Storage", "VL Endoscopic Image Storage"]
)
def test_pictures_of_other_classes_are_read(tmp_path, texture, dicom_files, name):
    uid = next(key for key, value in pydicom.uid.UID_dictionary.items() if value[0] == name)
    loop = np.stack([texture(seed) for seed in range(3)])
    path = _change(dicom_files.write_dicom(tmp_path / "x.dcm", loop), SOPClassUID=UID(uid))
    assert not_a_picture(path) is None and count_frames(path) == 3
    np.testing.assert_array_equal(read_image(path, 2), loop[1])


KINDS = ["MONOCHROME2", "MONOCHROME2 16", "RGB planar", "YBR_FULL_422", "RLE RGB", "JPEG2000 MONOCHROME2", "JPEG"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("told", "held"), [(None, 5), (1, 5), (7, 5), (4, 5), (2, 1)])
def test_frames_told_and_frames_held_are_one_number(tmp_path, texture, dicom_files, kind, told, held):
    loop = np.stack([texture(seed, 22, 36) for seed in range(held)])
    path = dicom_files.write_dicom(tmp_path / "x.dcm", loop, kind)
    assert count_frames(path) == held
    _change(path, NumberOfFrames=told)
    _refused(path, "NumberOfFrames" if told is None else f"NumberOfFrames {told} ", f"hold {held};")


def test_frames_in_several_fragments_are_counted_once(tmp_path, texture, dicom_files):
    streams = [dicom_files.jpeg(texture(seed)) for seed in range(3)]
    path = dicom_files.write_dicom(tmp_path / "x.dcm", np.stack([texture(0)] * 3), "JPEG")
    data = [encapsulate(streams, 3, has_bot=table) for table in (False, True)]
    for value in [*data, encapsulate_extended(streams)[0]]:
        _change(path, PixelData=value)
        assert count_frames(path) == 3
        assert np.abs(read_image(path, 3).astype(int) - texture(2)).mean() < 4
        _change(path, NumberOfFrames=1)
        _refused(path, "NumberOfFrames 1 ", "hold 3;")
        _change(path, NumberOfFrames=3)


def _without_preamble(path, dicom_files):
    path.write_bytes(path.read_bytes()[132:])


def _without_syntax(path, dicom_files):
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)


def _syntax(uid):
    def change(path, dicom_files):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID, dataset.PixelData = UID(uid), encapsulate([b"\0\0\0\1gh"])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)

    return change


def _deflated(path, dicom_files):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path)


def _float(path, dicom_files):
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31
    dataset.FloatPixelData = np.zeros((60, 80), np.float32).tobytes()
    dataset.save_as(path)


def _cut(path, dicom_files):
    path.write_bytes(path.read_bytes()[:-1000])


BROKEN = {
    "preamble": (_without_preamble, "lacks the preamble"),
    "syntax": (_without_syntax, "names no transfer syntax"),
    "mpeg2": (_syntax("1.2.840.10008.1.2.4.100"), "MPEG2 Main Profile / Main Level, a video"),
    "h264": (_syntax("1.2.840.10008.1.2.4.102"), "MPEG-4 AVC/H.264"),
    "hevc": (_syntax("1.2.840.10008.1.2.4.107"), "HEVC/H.265 Main Profile / Level 5.1, a video"),
    "private syntax": (_syntax("1.2.840.113619.5.2"), "which is not read here"),
    "deflated": (_deflated, "Deflated Explicit VR Little Endian, which is not read here"),
    "floating point": (_float, "floating-point values"),
    "cut short": (_cut, "damaged or truncated (3800 bytes of pixel data"),
    "no pixel data": ({"PixelData": None}, "without pixel data"),
    "empty pixel data": ({"PixelData": b""}, "damaged or truncated (0 bytes"),
    "not a frame": ({"PixelData": bytes(4800 + 2000)}, "damaged or truncated (6800 bytes"),
    "rows": ({"Rows": 0}, "80 x 0 pixels"),
    "interpretation": ({"PhotometricInterpretation": None}, "names no PhotometricInterpretation"),
    "odd interpretation": ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation CMYK"),
    "samples": ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "SamplesPerPixel 3 with PhotometricInterpretation"),
    "allocated": ({"BitsAllocated": 16}, "damaged or truncated (4800 bytes"),
    "odd allocated": ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated 12"),
    "stored": ({"BitsStored": 12, "HighBit": 11}, "BitsStored 12 with BitsAllocated 8"),
    "high bit": ({"BitsStored": 7}, "HighBit 7 with BitsStored 7"),
    "several": ({"BitsStored": None, "PixelRepresentation": None}, "names no BitsStored, PixelRepresentation"),
}


@pytest.mark.parametrize(("change", "told"), BROKEN.values(), ids=BROKEN)
def test_a_header_that_says_too_little_or_wrong(tmp_path, texture, dicom_files, change, told):
    path = dicom_files.write_dicom(tmp_path / "x.dcm", texture(1))
    if callable(change):
        change(path, dicom_files)
    else:
        _change(path, **change)
    _refused(path, told)


@pytest.mark.parametrize("signed", [0, 1])
def test_values_beyond_their_bits_are_not_cut(tmp_path, dicom_files, signed):
    """12 bits, in a file that says 8: their lower bytes would make a picture too."""
    path = dicom_files.write_dicom(tmp_path / "x.dcm", np.zeros((4, 4), np.uint8), "MONOCHROME2 16")
    values = np.linspace(0, 4095, 16).astype("<u2")
    _change(path, PixelData=values.tobytes(), PixelRepresentation=signed)
    with pytest.raises(MGCCError, match="values of 0 to 4095, which need more bits than its BitsStored of 8;"):
        read_image(path)
    _change(path, BitsStored=13, HighBit=12)
    np.testing.assert_array_equal(read_image(path).ravel(), np.rint(values / 4095 * 255))


def test_the_sign_of_unused_bits_does_not_count(tmp_path, dicom_files):
    """-2048 to 2047 in 12 of 16 bits, the other four as they may be: of the sign, or 0."""
    path = dicom_files.write_dicom(tmp_path / "x.dcm", np.zeros((4, 4), np.uint8), "MONOCHROME2 16")
    values = np.linspace(-2048, 2047, 16).astype("<i2")
    _change(path, PixelRepresentation=1, BitsStored=12, HighBit=11)
    for stored in (values, values & 0x0FFF):
        _change(path, PixelData=stored.tobytes())
        np.testing.assert_array_equal(read_image(path).ravel(), np.rint((values + 2048.0) / 4095 * 255))
