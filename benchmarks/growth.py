"""Growth with the number of images: ``python -m benchmarks.growth --counts 100,1000,10000``.

Images of smooth noise with a disc as lesion go through `prepare`, `check`, a training of one pass over the labelled
images by a tiny network, and an evaluation, each in a process of its own. Processor seconds, peak memory, and the
exponent of time between the two largest counts.
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

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("growth.json")
_SIZE = 96  # pixels per side
_TINY = {"image_size": [32, 32], "channels": [4, 4, 8, 8, 16], "batch_size": 4, "unlabeled_batch_size": 4}


def write_source(folder: Path, count: int) -> None:
    """Write images and masks in plain folders."""
    rows, columns = np.ogrid[:_SIZE, :_SIZE]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        noise = gaussian_filter(rng.normal(size=(_SIZE, _SIZE)), 2.5)
        image = np.clip(128 + noise / noise.std() * 40, 0, 254).astype(np.uint8)
        (row, column), radius = rng.uniform(30, 66, 2), rng.uniform(8, 20)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        Image.fromarray(np.where(disc, image // 2, image)).save(folder / f"images/{number}.png", compress_level=1)
        Image.fromarray(np.uint8(255 * disc)).save(folder / f"masks/{number}.png", compress_level=1)


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
