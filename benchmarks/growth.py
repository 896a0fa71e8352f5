"""Growth with the number of images: ``python -m benchmarks.growth --counts 100,1000,10000``.

Images of smooth noise with a disc as lesion go through `prepare`, `check`, a training of one pass over the labelled
images by a tiny network, an evaluation, and the gate over as many generated images as there are, each in a process of
its own. Generating itself takes the same time for every image. Processor seconds, peak memory, and the exponent of time
between the two largest counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn.functional import avg_pool2d

from mgcc_monai.data import load_datalist
from mgcc_monai.data.formats.images import read_image
from mgcc_monai.gate import apply_gate
from mgcc_monai.generation import manifest

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("growth.json")
_SIZE = 96  # pixels per side
_TINY = {"image_size": [32, 32], "channels": [4, 4, 8, 8, 16], "batch_size": 4, "unlabeled_batch_size": 4}


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its mask, uint8 HW."""
    rows, columns = np.ogrid[:_SIZE, :_SIZE]
    rng = np.random.default_rng(number)
    noise = gaussian_filter(rng.normal(size=(_SIZE, _SIZE)), 2.5)
    image = np.clip(128 + noise / noise.std() * 40, 0, 254).astype(np.uint8)
    (row, column), radius = rng.uniform(30, 66, 2), rng.uniform(8, 20)
    disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return np.where(disc, image // 2, image), np.uint8(255 * disc)


def write_source(folder: Path, count: int) -> None:
    """Write images and masks in plain folders."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        for name, pixels in zip(("images", "masks"), draw(number), strict=True):
            Image.fromarray(pixels).save(folder / f"{name}/{number}.png", compress_level=1)


def write_generated(folder: Path, count: int) -> None:
    """Write images that count as generated, with their manifest."""
    (folder / "images").mkdir(parents=True)
    blank = {"seed": 0, "class": "", "model": "", "sha256": "0" * 64, "scores": {}, "decision": "pending", "reason": ""}
    rows = [{"image": f"images/{number}.png", "index": number, **blank} for number in range(count)]
    for row in rows:
        Image.fromarray(draw(1_000_000 + row["index"])[0]).save(folder / row["image"], compress_level=1)
    manifest.write(folder, rows)


def judge(data: str, folder: str) -> None:
    """Apply the gate to what :func:`write_generated` wrote, with a blur in the autoencoder's place."""
    datalist = load_datalist(data)

    def images(*names: str) -> list[dict[str, torch.Tensor]]:
        paths = [item["image"] for name in names for item in datalist[name]]
        return [{"image": torch.from_numpy(read_image(path)[None] / np.float32(127.5) - 1)} for path in paths]

    blur = SimpleNamespace(reconstruct=lambda batch: avg_pool2d(batch, 3, 1, 1, count_include_pad=False))
    apply_gate(folder, blur, images("training", "unlabeled"), images("validation"), images("test"))


def run(words: list[str]) -> tuple[float, float]:
    """Run a command and return its processor seconds and its peak memory in MB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
        "sys.exit(done.stderr[-2000:] if done.returncode else 0)"
    )
    environment = {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-c", code, sys.executable, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def measure(count: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Run every step for this many images."""
    write_source(folder / "source", count)
    write_generated(folder / "generated", count)
    data = str(folder / "data")
    bundle = {"bundle_root": ROOT / "bundle", "dataset_dir": data, "output_dir": folder / "runs"}
    passes = max(1, round(0.35 * count / 4))
    options = {**bundle, **_TINY, "max_iterations": passes, "epoch_length": passes, "models_dir": folder / "models"}
    steps = {
        "prepare": ["-m", "mgcc_monai", "prepare", "--source", str(folder / "source"), "--output", data]
        + ["--label_fraction", "0.5"],
        "check": ["-m", "mgcc_monai", "check", "--dataset_dir", data],
        "train one pass": _workflow("training", ["train.json"], options),
        "evaluate": _workflow("evaluating", ["train.json", "evaluate.json"], {**bundle, **_TINY}),
        "gate": ["-c", f"from benchmarks.growth import judge; judge({data!r}, {str(folder / 'generated')!r})"],
    }
    return {name: run(words) for name, words in steps.items()}


def _workflow(run_id: str, configs: list[str], options: dict[str, object]) -> list[str]:
    files = str([str(ROOT / "bundle/configs" / name) for name in configs])
    words = ["-m", "monai.bundle", "run", run_id, "--config_file", files]
    return words + [word for name, value in options.items() for word in (f"--{name}", str(value))]


def main() -> None:
    """Measure every count and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--counts", default="100,1000,10000")
    counts = [int(word) for word in parser.parse_args().counts.split(",")]
    found = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            found[count] = measure(count, Path(folder))
        for name, (seconds, memory) in found[count].items():
            print(f"{count:6} images  {name:16} {seconds:8.1f} s  {memory:7.0f} MB", flush=True)
    rows = []
    for name in found[counts[-1]]:
        row = {"step": name, **{str(count): [round(value, 1) for value in found[count][name]] for count in counts}}
        if len(counts) > 1:
            small, large = (found[count][name] for count in counts[-2:])
            row["exponent"] = round(math.log(large[0] / small[0]) / math.log(counts[-1] / counts[-2]), 2)
            row["memory_ratio"] = round(large[1] / small[1], 2)
        rows.append(row)
        print(row)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
