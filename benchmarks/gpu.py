"""What waits for a GPU, in pieces that fit a short loan: ``python -m benchmarks.gpu --minutes 8``.

Pieces that are done are not repeated; a training that is stopped at the end of its minutes goes on in the next call.
Results: ``benchmarks/results_cuda.json`` and ``runs/gpu/pieces.json``.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_GRACE = 30  # seconds that a training has to save and end


def pieces(output: Path) -> dict[str, list[str]]:
    """Return the commands, in order."""
    train = [sys.executable, "-m", "monai.bundle", "run", "training", "--bundle_root", str(ROOT / "bundle")]
    train += ["--config_file", str(ROOT / "bundle/configs/train.json"), "--output_dir", str(output / "paper")]
    fit = [sys.executable, "-m", "mgcc_monai", "fit", "--preset", "medium", "--output_dir", str(output / "medium")]
    return {
        "table": [sys.executable, "-m", "benchmarks", "step", "inference", "stage1", "--device", "cuda"],
        "20,000 iterations of the paper's settings": train,
        "fit --preset medium": fit,
        "compiled step": [sys.executable, "-m", "benchmarks", "compiled", "--device", "cuda"],
    }


def run(command: list[str], deadline: float) -> bool:
    """Run a command until it ends or its time is up; return whether it ended well.

    Raises:
        SystemExit: where it failed.
    """
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        code = process.wait(max(1.0, deadline - _GRACE - time.time()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
        return False
    if code:
        raise SystemExit(code)
    return True


def main() -> None:
    """Run what is not done, within the minutes given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output_dir", default=str(ROOT / "runs/gpu"))
    options = parser.parse_args()
    deadline = time.time() + 60 * options.minutes
    output = Path(options.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    record = output / "pieces.json"
    done: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    for name, command in pieces(output).items():
        entry = done.setdefault(name, {"seconds": 0.0, "finished": False})
        if entry["finished"] or time.time() > deadline - 2 * _GRACE:
            continue
        if "training" in command and list((output / "paper/segmentation/checkpoints").glob("*.pt")):
            command = [*command, "--resume", "true"]
        begun = time.time()
        entry["finished"] = run(command, deadline)
        entry["seconds"] = round(entry["seconds"] + time.time() - begun, 1)
        record.write_text(json.dumps(done, indent=1) + "\n")
    for name, entry in done.items():
        print(f"{name}: {entry['seconds']:.0f} s{'' if entry['finished'] else ', not finished'}")


if __name__ == "__main__":
    main()
