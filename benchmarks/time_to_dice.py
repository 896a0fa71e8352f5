"""Time to accuracy: ``python -m benchmarks.time_to_dice --dataset_dir DATA``.

For each seed the plain small preset and today's are trained one after the other. The time is that until the validation
Dice first reaches the best of the plain run minus 0.005, read from ``training.log``. Then both are evaluated on the
test list, and the difference in Dice is given with an interval over groups of images, paired, the mean of all seeds.
Finished runs are not repeated; one that was stopped starts anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from mgcc_monai.data.items import embedded_phantoms
from mgcc_monai.evaluation.statistics import bootstrap_mean

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("time_to_dice.json")
MARGIN = 0.005
VARIANTS = {"plain": ROOT / "benchmarks" / "plain_small.yaml", "small": ROOT / "bundle/configs/presets/small.yaml"}


def run(stage: str, overlay: Path, folder: Path, data: str, seed: int) -> None:
    """Train or evaluate, unless it is done."""
    done = folder / ("segmentation/run.json" if stage == "training" else "evaluation/summary.json")
    if done.is_file() and (stage != "training" or json.loads(done.read_text()).get("status") == "finished"):
        return
    if stage == "training":
        shutil.rmtree(folder, ignore_errors=True)
    files = [ROOT / "bundle/configs/train.json", overlay]
    files += [ROOT / "bundle/configs/evaluate.json"] if stage == "evaluating" else []
    options = {"bundle_root": ROOT / "bundle", "dataset_dir": data, "output_dir": folder}
    if stage == "training":
        options |= {"seed": seed, "models_dir": folder / "models", "generated_fraction": 0}
    command = [sys.executable, "-m", "monai.bundle", "run", stage, "--config_file", str([str(path) for path in files])]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{stage}.txt").open("w") as log:
        environment = {"PYTHONWARNINGS": "ignore", **os.environ}
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)


def validations(folder: Path) -> list[tuple[float, float]]:
    """Return (seconds of training, validation Dice) of each epoch."""
    found, begun = [], None
    for line in (folder / "segmentation/training.log").read_text(errors="replace").splitlines():
        if not (stamp := re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3})", line)):
            continue
        now = datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(stamp[2]) / 1000
        begun = now if begun is None else begun
        if match := re.search(r"Epoch \d+, validation: val_mean_dice ([\d.]+)", line):
            found.append((now - begun, float(match[1])))
    return found


def first_at(curve: list[tuple[float, float]], target: float) -> float | None:
    """Return the seconds at which the Dice first reaches the target."""
    return next((seconds for seconds, dice in curve if dice >= target), None)


def test_dice(folder: Path) -> dict[tuple[str, str], float]:
    """Return the Dice of each test image with a lesion, by group and image."""
    with (folder / "evaluation/cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["list"] == "test"]
    return {(row["group"], row["image"]): float(row["dice"]) for row in rows}


def main() -> None:
    """Run what is missing and write the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_dice", description=__doc__)
    parser.add_argument("--dataset_dir", help="a prepared dataset; phantoms by default")
    parser.add_argument("--output_dir", default="runs/time_to_dice")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    output = Path(options.output_dir).absolute()
    data = options.dataset_dir or str(embedded_phantoms(output))
    rows, differences = [], []
    for seed in map(int, options.seeds.split(",")):
        folders = {name: output / f"{name}_{seed}" for name in VARIANTS}
        for name, overlay in VARIANTS.items():
            begun = time.time()
            run("training", overlay, folders[name], data, seed)
            run("evaluating", overlay, folders[name], data, seed)
            print(f"{name}, seed {seed}: {time.time() - begun:.0f} s", flush=True)
        curves = {name: validations(folder) for name, folder in folders.items()}
        target = max(dice for _, dice in curves["plain"]) - MARGIN
        dice = {name: test_dice(folder) for name, folder in folders.items()}
        differences.append([dice["small"][key] - dice["plain"][key] for key in sorted(dice["plain"])])
        row = {"seed": seed, "target": round(target, 4)}
        for name, curve in curves.items():
            at = first_at(curve, target)
            row |= {f"{name}_seconds": at and round(at), f"{name}_whole": round(curve[-1][0])}
            row |= {f"{name}_best": max(value for _, value in curve)}
            row |= {f"{name}_test": round(float(np.mean(list(dice[name].values()))), 4)}
        row["ratio"] = row["small_seconds"] and round(row["plain_seconds"] / row["small_seconds"], 2)
        rows.append(row)
        print(row, flush=True)
    mean, low, high = bootstrap_mean(np.mean(differences, axis=0), [group for group, _ in sorted(dice["plain"])])
    told = {"difference_in_test_dice": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "seeds": rows}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(f"test Dice, small minus plain: {mean:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
