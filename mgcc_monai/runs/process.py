"""A stage as a process of its own, to which signals are handed on."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mgcc_monai.handlers.preemption import SIGNALS

__all__ = ["run_and_forward"]


def run_and_forward(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command, hand SIGTERM and SIGINT on to it while it runs, and return its exit code (128 + n by signal n).

    Args:
        command: the program and its arguments.
        env: its environment.
    """
    process, early = None, []

    def hand_on(signum: int, frame: Any) -> None:
        early.append(signum) if process is None else process.send_signal(signum)

    with _handling(hand_on):
        process = subprocess.Popen(command, env=dict(env), start_new_session=True)  # Ctrl-C comes here alone, and once
        for signum in early:
            process.send_signal(signum)
        code = process.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _handling(handler: Any) -> Any:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
