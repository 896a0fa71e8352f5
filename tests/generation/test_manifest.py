"""Laws of the manifest: nothing wrong passes, nothing right is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import manifest

HASH = "d" * 64


def row(index: int, /, **changes: Any) -> dict[str, Any]:
    return {
        "image": f"images/{index:06d}.png",
        "index": index,
        "seed": 7,
        "class": "benign",
        "model": "0123456789abcdef",
        "sha256": f"{index:064x}",
        "scores": {"contrast": 0.25},
        "decision": "keep",
        "reason": "",
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four images, which nobody reads, without a manifest."""
    (tmp_path / "generated" / "images").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "generated" / "images" / f"{index:06d}.png").write_bytes(b"image")
    return tmp_path / "generated"


def note_dataset(folder: Path, content: str = json.dumps({"dataset_hash": HASH}), name: str = "run.json") -> None:
    (folder / name).write_text(content)


def refusal(function, *arguments: Any, **options: Any) -> str:
    with pytest.raises(MGCCError) as error:
        function(*arguments, **options)
    return str(error.value)


def test_round_trip_by_index(folder):
    rows = [row(2), row(0, **{"class": "bösartig"}), row(1, decision="drop", reason="copy")]
    manifest.write(folder, rows)
    assert manifest.read(folder) == sorted(rows, key=lambda item: item["index"])
    assert len((folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_scores_that_are_not_finite_are_null(folder):
    manifest.write(folder, [row(0, scores={"a": float("nan"), "b": float("inf"), "c": 1, "d": None})])
    assert manifest.read(folder)[0]["scores"] == {"a": None, "b": None, "c": 1.0, "d": None}
    manifest.write(folder, manifest.read(folder))
    assert manifest.read(folder)[0]["scores"]["a"] is None


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[1]", "is no object"),
        (json.dumps({"image": "images/000001.png"}), "lacks class, model, sha256"),
        (json.dumps(row(1, index="1")), "index is '1'"),
        (json.dumps(row(1, index=True)), "index is True"),
        (json.dumps(row(1, index=-1)), "index is -1"),
        (json.dumps(row(1, decision="maybe")), "decision is 'maybe'"),
        (json.dumps(row(1, sha256="x")), "sha256 is 'x'"),
        (json.dumps(row(1, scores={"a": "high"})), "scores are not numbers"),
        (json.dumps(row(1, scores={"a": float("nan")})), "scores are not numbers"),
        (json.dumps(row(1, scores={"a": 10**400})), "scores are not numbers"),
        (json.dumps(row(1, image="../outside.png")), "outside the folder"),
        (json.dumps(row(1, image="images/../../outside.png")), "outside the folder"),
        (json.dumps(row(1, image="/etc/hostname")), "outside the folder"),
        (json.dumps(row(1, image="C:\\images\\1.png")), "outside the folder"),
        (json.dumps(row(1, image="..\\outside.png")), "outside the folder"),
        (json.dumps(row(1, image="link/outside.png")), "outside the folder"),
        (json.dumps(row(1, image="a\0b.png")), "outside the folder"),
        (json.dumps(row(1, image="")), "outside the folder"),
        (json.dumps(row(9)), "images/000009.png is missing"),
        (json.dumps(row(0, image="images/000001.png")), "index 0 stands in line 1 too"),
        (json.dumps(row(1, image="images/000000.png")), "image images/000000.png stands in line 1 too"),
    ],
)
def test_a_faulty_line_is_named(folder, line, words):
    (folder / "link").symlink_to(folder.parent)
    (folder.parent / "outside.png").write_bytes(b"image")
    (folder / "manifest.jsonl").write_text("\n".join([json.dumps(row(0)), line, json.dumps(row(2)), ""]))
    message = refusal(manifest.read, folder)
    assert f"{folder / 'manifest.jsonl'}, line 2: " in message and words in message and "\n" not in message


def test_every_fault_is_told(folder):
    lines = [json.dumps(row(0)), "{", json.dumps(row(2, decision="no", sha256="x")), json.dumps(row(8))]
    (folder / "manifest.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    message = refusal(manifest.read, folder)
    assert "5 faults" in message
    assert [message.count(f"line {number}:") for number in range(1, 6)] == [0, 1, 2, 1, 1]


def test_a_missing_manifest_or_image_may_be_looked_over(folder):
    assert "no such file" in refusal(manifest.read, folder)
    manifest.write(folder, [row(9)])
    assert manifest.read(folder, check_images=False) == [row(9)]


def test_a_failed_write_leaves_the_old_manifest(folder, monkeypatch):
    manifest.write(folder, [row(0)])
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "No space left" in refusal(manifest.write, folder, [row(0), row(1)])
    assert "No space left" in refusal(manifest.append, folder, [row(1)])
    monkeypatch.undo()
    assert manifest.read(folder) == [row(0)]


def test_parts_of_several_processes_are_merged(folder):
    manifest.write(folder, [row(0), row(1, decision="pending")])
    manifest.append(folder, [row(2)], rank=0)
    manifest.append(folder, [row(3)], rank=10)
    manifest.append(folder, [row(1, reason="later")], rank=1)
    assert [part.name for part in manifest.parts(folder)] == [f"manifest.rank{rank}.jsonl" for rank in (0, 1, 10)]
    rows = manifest.merge(folder)
    assert rows == [row(0), row(1, reason="later"), row(2), row(3)] == manifest.read(folder)
    assert manifest.parts(folder) == []
    assert manifest.merge(folder, indices=[3, 0, 8]) == [row(0), row(3)] == manifest.read(folder)


def test_a_line_that_was_cut_off_is_left_out_of_a_part_alone(folder):
    part = manifest.append(folder, [row(0), row(1)])
    part.write_bytes(part.read_bytes()[:-5])
    assert manifest.merge(folder) == [row(0)]
    part.write_text("nonsense\n" + json.dumps(row(1)) + "\n")
    assert "manifest.rank0.jsonl, line 1" in refusal(manifest.merge, folder)
    assert part.is_file(), "nothing is lost"


def test_kept_images_are_those_that_were_kept(folder):
    assert manifest.kept_images(folder / "missing") == manifest.kept_images(folder) == []
    manifest.write(folder, [row(2, **{"class": ""}), row(0), row(1, decision="drop", reason="noise")])
    note_dataset(folder)
    items = [
        {"image": str(folder / "images" / "000000.png"), "class": "benign", "source": "synthetic"},
        {"image": str(folder / "images" / "000002.png"), "class": "", "source": "synthetic"},
    ]
    assert manifest.kept_images(folder) == manifest.kept_images(folder, {"hash": HASH}) == items
    note_dataset(folder, name="generation.json")
    assert manifest.kept_images(str(folder), {"hash": HASH}) == items


def test_images_that_were_not_judged_are_refused(folder):
    manifest.write(folder, [row(0), row(1, decision="pending"), row(2, decision="pending")])
    message = refusal(manifest.kept_images, folder)
    assert "2 of 3 images were not judged" in message and "\n" not in message


def test_a_stopped_generation_is_refused(folder):
    manifest.append(folder, [row(0)])
    assert "stopped before its end" in refusal(manifest.kept_images, folder)


@pytest.mark.parametrize("content", [None, "{}", json.dumps({"dataset_hash": "e" * 64}), "{", "[]"])
def test_images_of_another_dataset_are_refused(folder, content):
    manifest.write(folder, [row(0)])
    if content is not None:
        note_dataset(folder, content)
    message = refusal(manifest.kept_images, folder, {"hash": HASH})
    assert str(folder) in message and "\n" not in message


def test_images_that_are_gone_are_refused(folder):
    manifest.write(folder, [row(0), row(1)])
    (folder / "images" / "000001.png").unlink()
    assert "images/000001.png is missing" in refusal(manifest.kept_images, folder)
