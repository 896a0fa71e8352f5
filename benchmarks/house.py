"""The house in figures: sizes, arrows, what an extension takes, and how long commands take to start.

Run ``.venv/bin/python benchmarks/house.py [RUN]`` in the repository; RUN is a finished run for ``show``. Writes
``benchmarks/house.json`` and prints a table.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundle" / "configs"


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def cpu_seconds(*words: str) -> float:
    """User and system time of a Python process, the least of three."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-W", "ignore", *words], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return round(min(found), 2)


def arrows_up() -> int:
    """Broken contracts of the import graph."""
    code = "from importlinter.cli import lint_imports_command as command; command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return int(re.search(r"kept, (\d+) broken", done.stdout)[1])


def checks_of_fit() -> int:
    """How often the checks of a dataset run while three stages of one run ask for them."""
    from mgcc_monai.data.dataset import load_datalist
    from mgcc_monai.data.phantom.write import write_phantoms
    from mgcc_monai.runs.preflight import segmentation

    made, check = [], segmentation.check_dataset
    segmentation.check_dataset = lambda *words, **options: made.append(1) or check(*words, **options)
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(f"{folder}/data", count=20, size=(32, 32))
        datalist = load_datalist(f"{folder}/data")
        for _ in range(3):
            segmentation.check_data(datalist, datalist["training"], f"{folder}/run")
    return len(made)


def measure(run: str | None) -> dict[str, Any]:
    text = (CONFIGS / "train.json").read_text()
    expressions = re.findall(r'"([$][^"]*)"', text)
    strangers = (ROOT / "tests" / "test_strangers.py").read_text()
    teacher = ROOT / "mgcc_monai" / "methods" / "mean_teacher.py"
    rooms = sorted(path for path in (ROOT / "mgcc_monai").iterdir() if path.is_dir() and path.name[0] != "_")
    return {
        "lines of mgcc_monai": lines(*(ROOT / "mgcc_monai").rglob("*.py")),
        "lines of tests": lines(*(ROOT / "tests").rglob("*.py")),
        "lines per room": {room.name: lines(*room.rglob("*.py")) for room in rooms},
        "broken contracts of the import graph": arrows_up(),
        "train.json: lines, $, longest $": [len(text.splitlines()), len(expressions), max(map(len, expressions))],
        "evaluate_generation.json: lines": lines(CONFIGS / "evaluate_generation.json"),
        "multi_gpu overlays of trainings": len(list(CONFIGS.glob("multi_gpu_train*.json"))),
        "a perturbation of a stranger: lines": len(strangers.split("'''")[1].split("'''")[0].strip().splitlines()),
        "Mean Teacher: lines of module, overlay, test": [
            lines(teacher),
            lines(CONFIGS / "methods" / "mean_teacher.yaml"),
            lines(ROOT / "tests" / "methods" / "test_mean_teacher.py"),
        ],
        "a public layout: lines of its file": lines(ROOT / "mgcc_monai" / "data" / "layouts" / "busi.py"),
        "import mgcc_monai: CPU s": cpu_seconds("-c", "import mgcc_monai"),
        "python -m mgcc_monai --help: CPU s": cpu_seconds("-m", "mgcc_monai", "--help"),
        "python -m mgcc_monai fit --help: CPU s": cpu_seconds("-m", "mgcc_monai", "fit", "--help"),
        "python -m mgcc_monai show: CPU s": cpu_seconds("-m", "mgcc_monai", "show", "--output_dir", run)
        if run
        else None,
        "checks of an unchanged dataset by three stages": checks_of_fit(),
    }


if __name__ == "__main__":
    figures = measure(next(iter(sys.argv[1:]), None))
    (ROOT / "benchmarks" / "house.json").write_text(json.dumps(figures, indent=4) + "\n")
    for name, value in figures.items():
        print(f"{name:<52}{value}")
