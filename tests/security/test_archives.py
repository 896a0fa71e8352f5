"""A zip is unpacked inside its folder, or not at all."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from mgcc_monai.errors import MGCCError
from mgcc_monai.security import archives
from mgcc_monai.security.archives import archive_faults, extract, extract_safe


def zipped(path: Path, members: dict[str, bytes], kind: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo("member")
            member.filename = name  # ZipInfo's own constructor would mend some names
            member.external_attr = (kind | 0o644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return path


def extract_naively(path: Path, folder: Path) -> None:
    """What a loop over the members does that joins names and nothing else."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            target = Path(os.path.join(folder, member.filename))
            target.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(member.external_attr >> 16):
                target.symlink_to(archive.read(member).decode())
            else:
                target.write_bytes(archive.read(member))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_plain_archive_comes_out_as_it_went_in(tmp_path):
    members = {"b/configs/train.json": b"{}", "b/models/model.pt": os.urandom(3_000_000), "b/a b.txt": b""}
    extract(zipped(tmp_path / "x.zip", members), tmp_path / "out")
    assert files(tmp_path / "out") == members


@pytest.mark.parametrize("name", ["../marker", "a/../../marker", "/{}/marker"])
def test_zip_slip_writes_nothing_outside(name, tmp_path, naively):
    home = tmp_path / "home"
    home.mkdir()
    name, marker = name.format(str(home).strip("/")), home / "marker"
    path = zipped(tmp_path / "x.zip", {"good.txt": b"1", name: b"ran"})
    with pytest.raises(MGCCError, match=r"x\.zip: .*marker has (an absolute path|a path that leads out)"):
        extract(path, home / "out")
    assert not marker.exists() and not (home / "out").exists(), "all of it or nothing"
    assert [where for where, _ in extract_safe(path, home / "safe")] == [name]
    assert not marker.exists() and files(home / "safe") == {"good.txt": b"1"}
    naively(extract_naively, path, home / "naive")
    assert marker.read_bytes() == b"ran", "the payload must work, or the lines above show nothing"


@pytest.mark.parametrize(
    "name", ["C:\\marker", "C:marker", "a\\..\\..\\marker", "\\\\host\\marker", "a:stream", "a\nb"]
)
def test_names_that_mean_something_elsewhere_are_refused(name, tmp_path):
    assert [where for where, _ in archive_faults(zipped(tmp_path / "x.zip", {name: b""}))] == [name]


def test_file_written_through_a_link_stays_inside(tmp_path, naively):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = zipped(tmp_path / "x.zip", {"link": str(outside).encode()}, stat.S_IFLNK)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("link/marker", b"ran")
    with pytest.raises(MGCCError, match="link is a link"):
        extract(path, tmp_path / "out")
    extract_safe(path, tmp_path / "safe")
    assert not (outside / "marker").exists() and not (tmp_path / "safe" / "link").is_symlink()
    naively(extract_naively, path, tmp_path / "naive")
    assert (outside / "marker").read_bytes() == b"ran"


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_file_is_refused(kind, tmp_path):
    assert archive_faults(zipped(tmp_path / "x.zip", {"a": b""}, kind)) == [("a", "is no plain file")]


def test_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """20 million zeros make a zip of 20 thousand bytes."""
    path = zipped(tmp_path / "x.zip", {"configs/train.json": bytes(20_000_000)})
    assert path.stat().st_size < 25_000
    with pytest.raises(MGCCError, match="train.json grows from [0-9]+ to 20000000 bytes"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bomb_that_lies_about_its_size_is_cut_off(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": bytes(2_000_000)})
    content = path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(MGCCError):
        extract(path, tmp_path / "out")
    assert sum(len(content) for content in files(tmp_path / "out").values()) <= 10


def test_bounds_on_the_whole(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.zip", {str(n): b"1234" for n in range(5)})
    assert archive_faults(path) == []
    monkeypatch.setattr(archives, "MAX_TOTAL", 19)
    assert "unpacks to 20 bytes" in archive_faults(path)[0][1]
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    assert "has 5 members" in archive_faults(path)[0][1]
    assert extract_safe(path, tmp_path / "out") and not (tmp_path / "out").exists()


def test_same_name_twice_and_a_folder_in_use_are_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": b"1"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("./A", b"2")
    assert archive_faults(path) == [("./A", "stands in the archive twice")]
    with pytest.raises(MGCCError, match="is there already"):
        extract(zipped(tmp_path / "y.zip", {"a": b"1"}), tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 30, -1, -30])
def test_damaged_archive_is_told(cut, tmp_path):
    content = zipped(tmp_path / "x.zip", {"a": b"content" * 50}).read_bytes()
    (tmp_path / "x.zip").write_bytes(content[:cut])
    with pytest.raises(MGCCError, match="cannot be read as a zip"):
        extract(tmp_path / "x.zip", tmp_path / "out")


def test_changed_byte_is_told(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": os.urandom(500)})
    content = io.BytesIO(path.read_bytes())
    content.getbuffer()[200] ^= 1
    path.write_bytes(content.getvalue())
    with pytest.raises(MGCCError, match="cannot be unpacked"):
        extract(path, tmp_path / "out")
