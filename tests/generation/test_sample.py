"""Laws of generating a folder: the same files however it is done, and a stopped run goes on."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai import pictures
from mgcc_monai.data.contents import image_sha256
from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import manifest
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.generation.sample import generate

FEW = {"seed": 7, "num_inference_steps": 2}
COUNT = 11


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


@pytest.fixture(scope="module")
def whole(pipeline, tmp_path_factory) -> dict[str, bytes]:
    """The files of eleven images that were made at once."""
    folder = tmp_path_factory.mktemp("whole") / "generated"
    generate(pipeline, folder, num_images=COUNT, **FEW)
    return files_of(folder)


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """Indices of the images that are drawn, in order."""
    indices: list[int] = []
    draw = LatentDiffusionPipeline.__call__

    def noting(self: Any, **options: Any) -> Any:
        indices.extend(options["indices"])
        return draw(self, **options)

    monkeypatch.setattr(LatentDiffusionPipeline, "__call__", noting)
    return indices


def failing_after(monkeypatch, batches: int, error: BaseException) -> None:
    draw, calls = LatentDiffusionPipeline.__call__, []

    def stopping(self: Any, **options: Any) -> Any:
        calls.append(options)
        if len(calls) > batches:
            raise error
        return draw(self, **options)

    monkeypatch.setattr(LatentDiffusionPipeline, "__call__", stopping)


def test_what_is_written(pipeline, tmp_path):
    rows = generate(pipeline, tmp_path / "generated", num_images=3, **FEW)
    assert rows == manifest.read(tmp_path / "generated")
    images = pipeline(indices=range(3), **FEW)
    classes = [pipeline.config.classes[number] for number in pipeline.class_ids(range(3), 7)]
    for index, (row, image) in enumerate(zip(rows, images)):
        picture = Image.open(tmp_path / "generated" / row["image"])
        assert picture.mode == "L" and row["image"] == f"images/{index:06d}.png"
        assert np.array_equal(np.asarray(picture), (image[0] * 255).round().to(torch.uint8).numpy())
        assert row == {
            "image": row["image"],
            "index": index,
            "seed": 7,
            "class": classes[index],
            "model": pipeline.fingerprint(),
            "sha256": image_sha256(np.asarray(picture)),
            "scores": {},
            "decision": "pending",
            "reason": "",
        }
    settings = json.loads((tmp_path / "generated" / "generation.json").read_text())
    assert (
        settings["seed"] == 7 and settings["dataset_hash"] == "d" * 64 and settings["class_proportions"] == [0.7, 0.3]
    )
    assert settings["scheduler"] == "DPMSolverMultistepScheduler" and settings["num_inference_steps"] == 2
    assert sorted(path.name for path in (tmp_path / "generated").iterdir()) == [
        "generation.json",
        "images",
        "manifest.jsonl",
    ]


def test_single_images_are_those_of_the_whole(saved_pipeline, whole, tmp_path, capsys):
    generate(str(saved_pipeline), tmp_path / "generated", num_images=5, indices=[10, 0, 6], batch_size=1, **FEW)
    names = [f"{index:06d}.png" for index in (0, 6, 10)]
    assert files_of(tmp_path / "generated") == {name: whole[name] for name in names}
    assert "3/3" in capsys.readouterr().err


def test_two_processes_make_the_files_of_one(saved_pipeline, whole, tmp_path):
    program = """
import sys, torch.distributed as dist
from mgcc_monai.generation.sample import generate
rank, model, folder, meeting = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
rows = generate(model, folder, num_images=11, seed=7, num_inference_steps=2)
assert len(rows) == 11, len(rows)
dist.destroy_process_group()
"""
    folder = tmp_path / "generated"
    words = [str(saved_pipeline), str(folder), str(tmp_path / "meeting")]
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "000000.png").write_bytes(b"of another model")
    ranks = [
        subprocess.Popen([sys.executable, "-c", program, rank, *words], stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    messages = [process.communicate(timeout=900)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], messages
    assert files_of(folder) == whole and manifest.parts(folder) == []
    assert [row["index"] for row in manifest.read(folder)] == list(range(COUNT))
    assert "generating" in messages[0] and "generating" not in messages[1]
    assert files_of(tmp_path / "generated.previous-1") == {"000000.png": b"of another model"}


def test_a_killed_generation_goes_on(pipeline, whole, tmp_path, monkeypatch):
    folder = tmp_path / "generated"
    with monkeypatch.context() as patch:
        failing_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            generate(pipeline, folder, num_images=COUNT, **FEW)
    assert len(files_of(folder)) == 8
    with pytest.raises(MGCCError, match="stopped"):
        manifest.kept_images(folder)
    part = manifest.parts(folder)[0]
    part.write_bytes(part.read_bytes()[:-20])  # as if it was killed while it wrote the last line
    rest: list[int] = []
    with monkeypatch.context() as patch:
        draw = LatentDiffusionPipeline.__call__
        patch.setattr(
            LatentDiffusionPipeline, "__call__", lambda self, **o: (rest.extend(o["indices"]), draw(self, **o))[1]
        )
        generate(pipeline, folder, num_images=COUNT, **FEW)
    assert rest == [7, 8, 9, 10] and files_of(folder) == whole and manifest.parts(folder) == []


def test_only_what_is_lost_or_damaged_is_made_again(pipeline, whole, tmp_path, made):
    folder = tmp_path / "generated"
    generate(pipeline, folder, num_images=COUNT, **FEW)
    manifest.write(folder, [{**row, "decision": "keep"} for row in manifest.read(folder)])
    images = folder / "images"
    (images / "000002.png").unlink()
    (images / "000005.png").write_bytes(whole["000005.png"][:-30])
    (images / "000009.png").write_bytes(whole["000008.png"])
    times = {path.name: path.stat().st_mtime_ns for path in images.iterdir()}
    made.clear()
    rows = generate(pipeline, folder, num_images=COUNT, **FEW)
    assert made == [2, 5, 9] and files_of(folder) == whole
    again = {path.name for path in images.iterdir() if times.get(path.name) != path.stat().st_mtime_ns}
    assert again == {"000002.png", "000005.png", "000009.png"}
    assert [row["index"] for row in rows if row["decision"] == "pending"] == [2, 5, 9]
    made.clear()
    assert generate(pipeline, folder, num_images=COUNT, **FEW) == rows and made == []


def test_more_and_fewer_images(pipeline, tmp_path, made):
    folder = tmp_path / "generated"
    generate(pipeline, folder, num_images=3, **FEW)
    manifest.write(folder, [{**row, "decision": "keep"} for row in manifest.read(folder)])
    rows = generate(pipeline, folder, num_images=5, **FEW)
    assert made == [0, 1, 2, 3, 4] and [row["decision"] for row in rows] == ["keep"] * 3 + ["pending"] * 2
    rows = generate(pipeline, folder, indices=[9, 1], **FEW)
    assert made == [0, 1, 2, 3, 4, 9] and [row["index"] for row in rows] == [0, 1, 2, 3, 4, 9]
    assert [row["index"] for row in generate(pipeline, folder, num_images=2, **FEW)] == [0, 1]
    rows = generate(
        pipeline, folder, indices=[1], class_labels="malignant" if rows[1]["class"] == "benign" else 0, **FEW
    )
    assert made == [0, 1, 2, 3, 4, 9, 1] and [row["decision"] for row in rows] == ["keep", "pending"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"num_inference_steps": 1},
        {"scheduler": "DDIMScheduler"},
        {"guidance_scale": 2.0},
        {"class_proportions": [1, 1]},
        {"dataset_hash": "e" * 64},
        {"pipeline": 1},
    ],
)
def test_other_settings_are_not_mixed_in(pipeline, new_pipeline, tmp_path, made, changes):
    folder = tmp_path / "generated"
    generate(pipeline, folder, num_images=1, **FEW)
    before = files_of(folder)
    options = {"pipeline": pipeline, **FEW, **changes}
    if options["pipeline"] == 1:
        options["pipeline"] = new_pipeline(seed=1)
    generate(folder=folder, num_images=1, **options)
    assert made == [0, 0] and files_of(tmp_path / "generated.previous-1") == before
    generate(pipeline, folder, num_images=1, **FEW)
    assert (tmp_path / "generated.previous-2").is_dir() and files_of(folder) == before


def test_a_full_disk_keeps_what_was_finished(pipeline, whole, tmp_path, monkeypatch, made):
    folder, write, limits = tmp_path / "generated", pictures.write_file, resource.getrlimit(resource.RLIMIT_FSIZE)
    calls: list[Path] = []

    def filling(path: Path, data: bytes) -> Path:
        calls.append(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 if len(calls) > 6 else limits[0], limits[1]))
        try:
            return write(path, data)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "write_file", filling)
        with pytest.raises(MGCCError, match="cannot be written .*; free space") as error:
            generate(pipeline, folder, num_images=COUNT, **FEW)
    assert "\n" not in str(error.value) and "000006.png" in str(error.value)
    assert files_of(folder) == {f"{index:06d}.png": whole[f"{index:06d}.png"] for index in range(6)}
    made.clear()
    generate(pipeline, folder, num_images=COUNT, **FEW)
    assert made == [6, 7, 8, 9, 10] and files_of(folder) == whole


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_too_little_memory_names_what_to_lower(pipeline, tmp_path, monkeypatch, error):
    failing_after(monkeypatch, 1, error)
    with pytest.raises(MGCCError, match="after 4 of 11") as told:
        generate(pipeline, tmp_path / "generated", num_images=COUNT, **FEW)
    words = ("generation_batch_size", "image_size", "diffusion_channels")
    assert all(word in str(told.value) for word in words) and "\n" not in str(told.value)
    assert len(files_of(tmp_path / "generated")) == 4


def test_other_errors_are_not_taken_for_it(pipeline, tmp_path, monkeypatch):
    failing_after(monkeypatch, 0, RuntimeError("a size does not match"))
    with pytest.raises(RuntimeError, match="a size"):
        generate(pipeline, tmp_path / "generated", num_images=1, **FEW)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_images": 0}, "num_images 0"),
        ({"num_images": -3}, "num_images -3"),
        ({"num_images": 2.5}, "num_images 2.5"),
        ({}, "num_images: say how many"),
        ({"indices": []}, "indices"),
        ({"indices": [-1]}, "indices -1"),
        ({"num_images": 2, "class_labels": ["benignant"] * 2}, "benignant"),
        ({"num_images": 2, "class_labels": ["benign"]}, "1 for 2 images"),
        ({"num_images": 2, "scheduler": "DDIMSchedular"}, "DDIMScheduler"),
        ({"num_images": 2, "num_inference_steps": 0}, "num_inference_steps"),
        ({"num_images": 2, "batch_size": 0}, "batch_size"),
        ({"num_images": 2, "seed": -1}, "seed"),
        ({"num_images": 2, "pipeline": "missing"}, "missing: there is no model_index.json"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_moved(pipeline, tmp_path, options, words):
    folder = tmp_path / "generated"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(MGCCError, match=words) as error:
        generate(**{"pipeline": pipeline, "folder": folder, **options})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["generated"]
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]


def test_a_folder_in_use_is_refused_and_left_as_it_is(pipeline, tmp_path):
    """By another run of the same settings, of others, and by one that adds an image."""
    generate(pipeline, tmp_path / "generated", num_images=2, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["generated"]
    before = files_of(tmp_path / "generated")
    lock = {"pid": os.getppid(), "host": socket.gethostname(), "started": ""}  # pytest's parent lives
    (tmp_path / ".generated.lock").write_text(json.dumps(lock))
    for options in ({"num_images": 3}, {"num_images": 2, "guidance_scale": 2.0}, {"indices": [9]}):
        with pytest.raises(MGCCError, match=f"in use by another run .process {os.getppid()}."):
            generate(pipeline, tmp_path / "generated", **FEW, **options)
    assert files_of(tmp_path / "generated") == before and len(list(tmp_path.iterdir())) == 2
