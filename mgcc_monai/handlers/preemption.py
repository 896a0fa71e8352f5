"""Being told to stop, by SIGTERM or SIGINT: what runs is brought to a point from which it can go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from mgcc_monai.distributed import all_reduce_max, rank_and_size

__all__ = ["Preempted", "StopSignals"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_PATIENCE = 3.0  # seconds over twice the longest iteration, after which one of several processes is held to hang


class Preempted(SystemExit):
    """The end of a process that was told to stop and has saved its work; its exit code is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"told to stop by {signal.Signals(self.signum).name}"


class StopSignals:
    """Note SIGTERM and SIGINT while a training runs, so that it ends itself between two iterations.

    Nothing is saved by the signal's handler itself, which may come in the middle of a step. A second SIGINT ends a
    single process at once. Of several processes all stop at the same iteration; one that ends no iteration any more,
    because another is gone or it hangs itself, gives up after a little more than twice the longest one.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._beat = 0.0
        self._longest = 0.0
        self._watch: threading.Timer | None = None

    def listen(self) -> None:
        """Take the signals over; in another thread than the main one, leave them as they are."""
        self._beat, self._process = time.monotonic(), os.getpid()
        if not self._before and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def restore(self) -> None:
        """Give the signals back."""
        self._stop_watch()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def heartbeat(self) -> None:
        """Note that an iteration has ended."""
        now = time.monotonic()
        self._longest, self._beat = max(self._longest, now - self._beat), now
        if self._watch is not None:
            self._start_watch()

    def poll(self) -> int:
        """Return the number of the signal that any process has had, or 0; every process must ask."""
        self.signum = all_reduce_max(self.signum)
        if self.signum:
            self._stop_watch()
        return self.signum

    def _note(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a worker of the data loader, which ends with its loader
        alone = rank_and_size()[1] == 1
        if self.signum and signum == signal.SIGINT and alone:
            raise KeyboardInterrupt
        if not self.signum and rank_and_size()[0] == 0:
            word = signal.Signals(signum).name
            os.write(2, f"\n{word}: saving after this iteration, then the run ends.\n".encode())
        self.signum = signum
        if not alone:
            self._start_watch()

    def _start_watch(self) -> None:
        self._stop_watch()
        self._watch = threading.Timer(2 * self._longest + _PATIENCE, os._exit, [128 + self.signum])
        self._watch.daemon = True
        self._watch.start()

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
