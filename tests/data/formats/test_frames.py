"""Nothing that lies in a folder is passed over unseen: it is read, refused, or counted in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.formats import frames as paths
from mgcc_monai.data.formats.frames import image_stem, read_tree, video
from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.data.items import images_to_segment
from mgcc_monai.data.layouts.busi import scan_busi
from mgcc_monai.data.layouts.folders import scan_folders
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


BUSI = ("b/a (1).png", "b/a (1)_mask.png", "m/c (1).png", "m/c (1)_mask.png")
PLAIN = ("images/b/1.png", "masks/b/1.png", "images/m/2.png", "masks/m/2.png")


@pytest.mark.parametrize(
    ("scan", "sound", "added", "told"),
    [
        (scan_busi, BUSI[:2], ("m/m/c (1).png", "m/m/c (1)_mask.png", "m/m/d.png"), "m/m/c (1).png and 2 more"),
        (scan_busi, BUSI, ("x.png",), "x.png: "),
        (scan_busi, BUSI, ("b/old/deep/er/a.JFIF",), "b/old/deep/er/a.JFIF: "),
        (scan_busi, tuple(f"Dataset_BUSI_with_GT/{n}" for n in BUSI), ("benign/z.tif",), "benign/z.tif: "),
        (scan_folders, PLAIN[:2], ("images/m/m/2.png", "masks/m/m/2.png"), "images/m/m/2.png: "),
        (scan_folders, PLAIN, ("masks/b/more/1_mask.png",), "masks/b/more/1_mask.png: "),
        (scan_folders, ("images/1.png", "masks/1.png"), ("more/images/2.png",), "more/images/2.png: "),
    ],
)
def test_images_deeper_or_beside_are_faults(tmp_path, scan, sound, added, told) -> None:
    _touch(tmp_path, *sound)
    assert scan(tmp_path)[1] == []
    _touch(tmp_path, *added)
    _, faults = scan(tmp_path)
    assert [fault for fault in faults if fault.startswith(f"{tmp_path}/{told}") and "not read there" in fault]
    assert len(faults) == 1 + told.startswith("images/m/m")


def test_dicom_without_a_suffix_is_known_in_any_folder(tmp_path, dicom_files, texture) -> None:
    (tmp_path / "study" / "series").mkdir(parents=True)
    dicom_files.write_dicom(tmp_path / "1.2.840.1", texture(1))
    dicom_files.write_dicom(tmp_path / "study" / "series" / "IM0001", texture(2))
    _touch(tmp_path, "DICOMDIR", "study/report")
    with pytest.raises(MGCCError, match="IM0001: not read there"):
        images_to_segment(tmp_path)
    assert [path.name for path in images_to_segment(tmp_path, output_dir=tmp_path / "study")] == ["1.2.840.1.dcm"]


@pytest.mark.parametrize("name", ["a.png", "b.DCM", "without", "classes.csv"])
@pytest.mark.parametrize("inside", ["", "sub/"])
def test_links_to_nothing_are_faults(tmp_path, name, inside) -> None:
    """As git-annex leaves them where a file was not fetched; ``Path.is_file`` says no to them."""
    _touch(tmp_path, "x.png", f"{inside}.hidden")
    (tmp_path / inside / name).symlink_to(".git/annex/objects/XX/SHA256E-s1.png")
    (tmp_path / inside / ".#lock").symlink_to("someone@somewhere")
    assert [f.split(": ")[0] for f in read_tree(tmp_path).faults] == [str(tmp_path / inside / name)]
    with pytest.raises(MGCCError, match="a link to nothing"):
        images_to_segment(tmp_path)


def test_links_to_folders_are_followed_and_loops_end(tmp_path) -> None:
    _touch(tmp_path, "elsewhere/a (1).png", "elsewhere/a (1)_mask.png", "source/m/b.png", "source/m/b_mask.png")
    (tmp_path / "source" / "linked").symlink_to(tmp_path / "elsewhere")
    cases, faults = scan_busi(tmp_path / "source")
    assert {case.class_name for case in cases} == {"linked", "m"} and not faults
    (tmp_path / "source" / "m" / "up").symlink_to(tmp_path / "source")
    (tmp_path / "elsewhere" / "self").symlink_to("self")
    _, faults = scan_busi(tmp_path / "source")
    assert sorted(fault.split(": ")[0] for fault in faults if "link to" in fault)[0].endswith("linked/self")
    assert sum("lies in" in fault for fault in faults) >= 1


def test_what_cannot_be_opened_is_a_fault(tmp_path, monkeypatch) -> None:
    _touch(tmp_path, "a.png", "closed/b.png", "unknown", "c.png")
    listed, known = os.scandir, paths.is_dicom

    def refuse(path, *args):
        if Path(path).name in ("closed", "unknown"):
            raise PermissionError(13, "Permission denied", str(path))
        return known(path) if args else listed(path)

    monkeypatch.setattr(paths.os, "scandir", refuse)
    monkeypatch.setattr(paths, "is_dicom", lambda path: refuse(path, True))
    tree = read_tree(tmp_path)
    assert [fault.split(": ")[0] for fault in tree.faults] == [str(tmp_path / name) for name in ("closed", "unknown")]
    assert all("Permission denied" in fault for fault in tree.faults)
    assert [path.name for path in tree.images[tmp_path]] == ["a.png", "c.png"]


SILENT = (".hidden.png", "Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/._a.png", "__MACOSX/b.png", "README.md")
NOT_READ = (
    "a.heic",
    "b.mhd",
    "b.raw",
    "c.tif.bak",
    "d.PNG.txt",
    "e.nrrd",
    "f.ppm",
    "g.TXT",
    "notes",
    "1.2.840.9",
    "s/h",
)


def test_all_else_is_one_line_and_what_systems_leave_is_silent(tmp_path, caplog) -> None:
    _touch(tmp_path, "x.png", *SILENT)
    assert [path.name for path in images_to_segment(tmp_path)] == ["x.png"] and not caplog.records
    _touch(tmp_path, *NOT_READ)
    os.mkfifo(tmp_path / "pipe")
    assert [path.name for path in images_to_segment(tmp_path)] == ["x.png"]
    (record,) = caplog.records
    told = "12 files not read: 4 without suffix, 2 .txt, 1 .bak, 1 .heic, 1 .mhd, 1 .nrrd, ..."
    assert record.getMessage() == f"{tmp_path}: {told}" and record.levelname == "WARNING"


def test_prepare_tells_of_all_its_folders(busi_tree, tmp_path, caplog, texture) -> None:
    more = busi_tree / "more"  # in the source, and no class
    _touch(more, "clip.heic", "sub/list.txt")
    Image.fromarray(texture(77)).save(more / "u.png")
    _touch(busi_tree, "malignant/extra.mhd", "__MACOSX/malignant/._malignant (1).png")
    prepare(str(busi_tree), str(busi_tree / "out"), unlabeled=str(more))
    assert [record.getMessage() for record in caplog.records] == [
        f"{busi_tree}: 1 file not read: 1 .mhd",
        f"{more}: 2 files not read: 1 .heic, 1 .txt",
    ]
    prepare(str(busi_tree), str(busi_tree / "out"), unlabeled=str(more), overwrite=True)
    _touch(more, "deeper/v.png", "w.mp4")
    (busi_tree / "malignant" / "again").mkdir()
    os.rename(busi_tree / "malignant" / "malignant (1).png", busi_tree / "malignant" / "again" / "malignant (1).png")
    with pytest.raises(MGCCError) as error:
        prepare(str(busi_tree), str(tmp_path / "new"), unlabeled=str(more))
    for name in ("more/deeper/v.png", "more/w.mp4", "malignant/again/malignant (1).png"):
        assert f"{busi_tree / name}: " in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "JPEG"])
def test_one_picture_is_read_and_an_animation_refused(tmp_path, texture, disc, kind) -> None:
    end = {"GIF": ".gif", "WEBP": ".webp", "JPEG": ".JFIF"}[kind]
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(texture(1)).save(tmp_path / f"a{end}", kind, **options)
    Image.fromarray(disc()).save(tmp_path / f"m{end}", kind, **options)
    assert images_to_segment(tmp_path) == [tmp_path / f"a{end}", tmp_path / f"m{end}"]
    assert image_stem(tmp_path / f"a{end}") == "a" and not video(tmp_path / f"a{end}")
    np.testing.assert_allclose(read_image(tmp_path / f"a{end}").astype(int), texture(1), atol=16 * (kind == "JPEG"))
    np.testing.assert_array_equal(read_mask(tmp_path / f"m{end}"), disc() // 255)
    if kind != "JPEG":
        frames = [Image.fromarray(texture(seed)) for seed in (2, 3)]
        frames[0].save(tmp_path / f"loop{end}", kind, save_all=True, append_images=frames[1:], **options)
        for act in (lambda: images_to_segment(tmp_path), lambda: read_image(tmp_path / f"loop{end}")):
            with pytest.raises(MGCCError, match=f"loop{end}: a video"):
                act()


def test_a_damaged_gif_is_no_video(tmp_path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(9))
    assert images_to_segment(tmp_path) == [tmp_path / "a.gif"]
    with pytest.raises(MGCCError, match="a.gif: (damaged|not an image)"):
        read_image(tmp_path / "a.gif")


def test_a_large_tree_is_looked_at_once(tmp_path, monkeypatch) -> None:
    for number in range(800):
        _touch(tmp_path, f"class{number % 20}/{number}.png", f"class{number % 20}/{number}_mask.png")
    _touch(tmp_path, "class0/IM1", "class0/IM2")
    opened = []
    known = paths.is_dicom
    monkeypatch.setattr(paths, "is_dicom", lambda path: opened.append(path.name) or known(path))
    cases, _ = scan_busi(tmp_path)
    assert len(cases) == 800 and sorted(opened) == ["IM1", "IM2"]
