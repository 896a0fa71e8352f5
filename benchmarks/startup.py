"""Start-up: processor seconds of commands that compute nothing; the baseline imports MONAI and torch."""

from __future__ import annotations

from benchmarks.measure import Row, cpu_seconds


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time the commands."""
    commands = {
        "import monai, torch": ["-c", "import monai, torch"],
        "import mgcc_monai": ["-c", "import mgcc_monai"],
        "mgcc_monai --help": ["-m", "mgcc_monai", "--help"],
        "mgcc_monai show --help": ["-m", "mgcc_monai", "show", "--help"],
    }
    seconds = {name: cpu_seconds(command, max(1, repeats // 2)) for name, command in commands.items()}
    baseline = next(iter(seconds.values()))
    return [Row("start-up", name, baseline, taken, baseline / taken) for name, taken in seconds.items()]
