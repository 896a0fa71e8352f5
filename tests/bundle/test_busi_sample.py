"""Real images as they are distributed, through everything: prepared, trained on, evaluated, segmented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


def command(cwd: Path, *words: str) -> str:
    """Run ``python -m ...`` and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_busi_as_distributed_goes_all_the_way(shared: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared("data/busi_original_sample")
    table = command(
        tmp_path, "mgcc_monai", "prepare", "--source", str(source), "--output", "data", "--label_fraction", "0.5"
    )
    assert "training" in table and "unlabeled" in table
    lists = json.loads((tmp_path / "data" / "dataset.json").read_text())
    images = len([path for path in source.rglob("*.png") if "_mask" not in path.name])
    names = ("training", "unlabeled", "validation", "test", "normal")
    assert sum(len(lists[name]) for name in names) + len(lists.get("left_out", [])) == images

    bundle, configs = REPOSITORY / "bundle", REPOSITORY / "bundle" / "configs"
    common = ["--bundle_root", str(bundle), "--output_dir", "runs", "--models_dir", str(tmp_path / "models")]
    train = f"['{configs}/train.json','{configs}/presets/demo.yaml']"
    evaluate = f"['{configs}/train.json','{configs}/evaluate.json']"
    short = ["--max_iterations", "3", "--epoch_length", "3", "--image_size", "[48,48]"]
    run = ["monai.bundle", "run"]
    command(tmp_path, *run, "training", "--config_file", train, "--dataset_dir", "data", *common, *short)
    printed = command(tmp_path, *run, "evaluating", "--config_file", evaluate, "--dataset_dir", "data", *common)
    assert "benign" in printed and "malignant" in printed and "normal images with a false positive" in printed
    summary = json.loads((tmp_path / "runs" / "evaluation" / "summary.json").read_text())
    assert summary["n"] == len(lists["test"]) and summary["normal"]["n"] == len(lists["normal"])

    new = tmp_path / "new"
    new.mkdir()
    chosen = [path for path in sorted((source / "malignant").glob("*.png")) if "_mask" not in path.name][:3]
    for path in chosen:
        (new / path.name).write_bytes(path.read_bytes())
    settings = str(tmp_path / "runs" / "segmentation" / "inference.json")
    command(tmp_path, *run, "inferring", "--config_file", settings, "--dataset_dir", "new", "--output_dir", "masks")
    for path in chosen:
        assert Image.open(tmp_path / "masks" / path.name).size == Image.open(path).size
