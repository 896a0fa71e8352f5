"""Laws of how threads wait: a busy processor is counted, an idle one is not, and a user's setting stands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgcc_monai.runs.threads import busy_processors, waiting

NUMBERS = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else [0, 1]


def write(path: Path, ticks: list[tuple[int, int]]) -> None:
    """Counters in the form of Linux: user ticks and idle ticks of each processor, and of one that is not ours."""
    lines = ["cpu  9 9 9 9 9 9 9 9 9 9"]
    lines += [f"cpu{number} {user} 0 0 {idle} 0 0 0 0 0 0" for number, (user, idle) in zip(NUMBERS, ticks)]
    path.write_text("\n".join([*lines, "cpu9999 100 0 0 0 0 0 0 0 0 0", "intr 5"]) + "\n")


def test_busy_processors_are_counted_from_the_differences(tmp_path):
    stat = tmp_path / "stat"
    write(stat, [(100, 900), (500, 500)])
    timer = threading.Timer(0.1, write, [stat, [(110, 990), (575, 525)]])
    timer.start()
    wanted = sum([10 / 100, 75 / 100][: len(NUMBERS)])
    assert busy_processors(str(stat), 0.5) == pytest.approx(wanted)
    timer.join()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs the counters of Linux")
def test_a_process_that_computes_is_seen():
    before = busy_processors(seconds=0.5)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        time.sleep(0.3)
        found = busy_processors(seconds=0.5)
        process.kill()
    assert found >= min(0.8, len(os.sched_getaffinity(0)) - 0.2) and before is not None


def test_a_system_without_counters_is_left_alone(tmp_path):
    assert busy_processors(str(tmp_path / "none"), 0) is None
    assert waiting({}, None) == ({}, "")


def test_threads_sleep_on_shared_processors_unless_the_user_says_otherwise():
    assert waiting({}, 0.1) == ({}, "")
    added, told = waiting({}, 1.6)
    assert added == {"GOMP_SPINCOUNT": "1000"} and "1.6 processors" in told
    for name, value in (("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "active")):
        assert waiting({name: value}, 1.6) == ({}, "")
