"""Timing variants side by side in one process."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Row", "cpu_seconds", "machine", "matmul_rate", "peak_mb", "rows", "time_variants"]


class Row(NamedTuple):
    """One line of the table.

    Args:
        question: what is timed.
        variant: how it is done.
        baseline_s: seconds of the plain way.
        seconds: seconds of this one, the median.
        ratio: how many times faster.
        limit_fraction: its arithmetic per second, over the rate of a matrix product measured in the same run; above 1
            where an algorithm needs less arithmetic than is counted.
        peak_mb: memory beyond what the process had before, where it was measured.
    """

    question: str
    variant: str
    baseline_s: float
    seconds: float
    ratio: float
    limit_fraction: float | None = None
    peak_mb: float | None = None


def synchronize() -> None:
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_variants(variants: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Return the median seconds of each variant; they take turns, after a first round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            synchronize()
            begun = time.perf_counter()
            call()
            synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: median(found) for name, found in seconds.items()}


def matmul_rate(device: str = "cpu", dtype: torch.dtype = torch.float32, side: int = 2048) -> float:
    """Return the arithmetic per second of a product of matrices, the best of nine."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(9):
        synchronize()
        begun = time.perf_counter()
        a @ b
        synchronize()
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * side**3 / fastest


def count_flops(call: Callable[[], Any]) -> float | None:
    """Return the arithmetic of a call; None where nothing of it is torch's."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() or None


def rows(
    question: str,
    variants: Mapping[str, Callable[[], Any]],
    repeats: int = 7,
    rate: float | None = None,
    peaks: Mapping[str, float] | None = None,
) -> list[Row]:
    """Time variants, the first of which is the baseline, and return their rows."""
    seconds = time_variants(variants, repeats)
    baseline = next(iter(seconds.values()))
    found = []
    for name, taken in seconds.items():
        flops = count_flops(variants[name]) if rate else None
        limit = round(flops / taken / rate, 3) if flops else None
        found.append(Row(question, name, baseline, taken, baseline / taken, limit, (peaks or {}).get(name)))
    return found


def cpu_seconds(command: list[str], repeats: int = 5) -> float:
    """Return the median processor seconds of a Python command in a process of its own."""
    found = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(found)


def peak_mb(code: str) -> float:
    """Run Python code in a process of its own and return how far its memory rose above that after its first line."""
    first, rest = code.split("\n", 1)
    measured = (
        f"{first}\nimport resource\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n{rest}\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", measured], check=True, capture_output=True, text=True, env=environment)
    return round(float(done.stdout.split()[-1]), 1)


def machine(device: str) -> dict[str, Any]:
    """Return what a time depends on: processor, threads, versions."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
