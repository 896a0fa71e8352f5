"""How many labels the shipped weights spare: ``python -m benchmarks.few_labels --dataset_dir DATA``.

For each seed the dataset is split anew, 25, 50 and 100 training images keep their labels, and two segmenters learn from
these alone: one from scratch, by 400 iterations of the preset small, and one from the weights `breast`, by 60
iterations of `few_labels.yaml`, which take about the same time. Both are supervised, main decoder alone. They and the
weights as they are shipped are evaluated on the same test list. Runs go on side by side, a thread each; finished ones
are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.time_to_dice import ROOT, test_dice
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.prepare import split
from mgcc_monai.evaluation.statistics import bootstrap_mean

RESULTS = Path(__file__).with_name("few_labels.json")
VARIANTS = {
    "scratch": ["--preset", "small", "--max_iterations", "400"],
    "pretrained": ["--preset", f"small,{ROOT / 'benchmarks/few_labels.yaml'}", "--pretrained", "breast"],
}
_COMMON = ["--method", "supervised", "--perturbations", "[]", "--device", "cpu"]


def fit(folder: Path, data: Path, words: Sequence[str], seed: int) -> None:
    """Train and evaluate; `fit` itself skips what is done."""
    begun = time.time()
    command = [sys.executable, "-m", "mgcc_monai", "fit", "--output_dir", folder, "--dataset_dir", data, *_COMMON]
    command += [*words, "--seed", seed, "--bundle_root", ROOT / "bundle", "--models_dir", folder / "models"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fit.txt").open("a") as log:
        subprocess.run([*map(str, command)], check=True, stdout=log, stderr=log, cwd=ROOT, env=environment)
    print(f"{folder.name}: {time.time() - begun:.0f} s", flush=True)


def evaluate_shipped(folder: Path, data: Path) -> None:
    """Evaluate the weights as they are, with no label of the dataset."""
    if (folder / "evaluation/summary.json").is_file():
        return
    files = [str(ROOT / "bundle/configs" / name) for name in ("train.json", "evaluate.json")]
    options = {"bundle_root": ROOT / "bundle", "segmentation_dir": ROOT / "bundle/models/breast", "device": "cpu"}
    options |= {"dataset_dir": data, "output_dir": folder}
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", str(files)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "evaluate.txt").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def datasets(data: Path, counts: Sequence[int], seed: int) -> dict[int, Path]:
    """Return a dataset file for each number of labels; fewer labels are among the more."""

    def draw(name: str, label_fraction: float) -> Path:
        file = data / f"dataset_seed{seed}{name}.json"
        if not file.is_file():
            split(str(data), str(file), label_fraction=label_fraction, split_seed=seed)
        return file

    images = len(load_datalist(draw("", 1.0))["training"])
    return {count: draw(f"_{count}", count / images) for count in counts}


def compare(output: Path, count: int, seeds: Sequence[int]) -> dict[str, object]:
    """Return the mean test Dice of both variants and their difference, paired by image, all seeds together."""
    dice = {name: [test_dice(output / f"{name}_{count}_{seed}") for seed in seeds] for name in VARIANTS}
    row: dict[str, object] = {"labels": count}
    for name, runs in dice.items():
        row[name] = [round(float(np.mean(list(run.values()))), 4) for run in runs]
    pairs = [
        (key[0], tuned[key] - scratch[key])
        for scratch, tuned in zip(dice["scratch"], dice["pretrained"], strict=True)
        for key in sorted(scratch)
    ]
    groups, differences = zip(*pairs, strict=True)
    row["difference"] = [round(value, 4) for value in bootstrap_mean(np.array(differences), list(groups))]
    return row


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_labels", description=__doc__)
    parser.add_argument("--dataset_dir", required=True, help="the folder of a prepared dataset")
    parser.add_argument("--output_dir", default="runs/few_labels")
    parser.add_argument("--counts", default="25,50,100")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    options = parser.parse_args()
    output, data = Path(options.output_dir).absolute(), Path(options.dataset_dir).absolute()
    counts, seeds = (list(map(int, text.split(","))) for text in (options.counts, options.seeds))
    files = {seed: datasets(data, counts, seed) for seed in seeds}
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(fit, output / f"{name}_{count}_{seed}", files[seed][count], words, seed)
            for seed in seeds
            for count in counts
            for name, words in VARIANTS.items()
        ]
        runs += [pool.submit(evaluate_shipped, output / f"shipped_{seed}", files[seed][counts[0]]) for seed in seeds]
        for run in runs:
            run.result()
    shipped = [round(float(np.mean(list(test_dice(output / f"shipped_{seed}").values()))), 4) for seed in seeds]
    print({"labels": 0, "shipped": shipped})
    rows = [compare(output, count, seeds) for count in counts]
    for row, count in zip(rows, counts, strict=True):
        row["labelled"] = [len(load_datalist(files[seed][count])["training"]) for seed in seeds]
        print(row)
    RESULTS.write_text(json.dumps({"seeds": seeds, "shipped": shipped, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
