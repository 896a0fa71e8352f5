"""Freed memory kept or given back, at 256 x 256: each in processes of its own, in turns; on the CPU alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Row

_CODE = """import sys, time, json, resource, torch
from benchmarks.plain import Step, mgcc
from benchmarks.stage1 import autoencoder_step, denoiser_step
from mgcc_monai.allocator import keep_memory
from statistics import median
torch.set_num_threads({threads})
if {keep}:
    assert keep_memory()
{task}
call()
seconds = []
for _ in range({repeats}):
    begun = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - begun)
print(json.dumps([median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"""

_TASKS = {
    "autoencoder step, memory": "call = autoencoder_step()",
    "denoiser step, memory": "call = denoiser_step()",
    "training step at 256 x 256, memory": "call = Step(mgcc(auxiliary_per_step=1), side=256)",
    "segmenting 16 of 256 x 256, memory": """network, images = mgcc().eval(), torch.randn(16, 1, 256, 256)
call = torch.no_grad()(lambda: network(images))""",
}
_TURNS = 2


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time a step and a batch with freed memory given back, as by default, and kept."""
    if device != "cpu" or sys.platform != "linux":
        return []
    found = []
    for question, task in _TASKS.items():
        taken: dict[str, list[list[float]]] = {"given back": [], "kept": []}
        for _ in range(_TURNS):
            for name, runs in taken.items():
                runs.append(_run(task, name == "kept", max(1, repeats // 2)))
        plain = median(seconds for seconds, _ in taken["given back"])
        for name, runs in taken.items():
            seconds, peak = median(run[0] for run in runs), max(run[1] for run in runs)
            found.append(Row(question, name, plain, seconds, plain / seconds, None, peak))
    return found


def _run(task: str, keep: bool, repeats: int) -> list[float]:
    code = _CODE.format(threads=torch.get_num_threads(), keep=keep, task=task, repeats=repeats)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])
