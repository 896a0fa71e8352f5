"""Saves checkpoints in a child process and kills it at random points: ``python kill_saves.py FOLDER KILLS WAY``.

With WAY "atomic" the child saves as the bundle does; with "in place" it writes over the one file, as ``torch.save`` on
a path does, which shows that the kills do harm. Prints a JSON object with what was found.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from mgcc_monai.handlers.checkpoint import ResumableCheckpoint, checkpoints, newest_checkpoint
from mgcc_monai.weights import load_checkpoint

NUMBERS = 1_000_000  # 4 MB


class Weights:
    """As many numbers as a small network has, all of one value, so that a mixture would show."""

    def __init__(self) -> None:
        self.tensor = torch.zeros(NUMBERS)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the numbers."""
        return {"tensor": self.tensor}


def save_for_ever(folder: Path, first: int, way: str, said: int) -> None:
    """Save number after number, and say when each is done."""
    weights = Weights()
    saver = ResumableCheckpoint(str(folder), {"network": weights})
    for number in itertools.count(first):
        weights.tensor.fill_(number)
        if way == "atomic":
            saver(SimpleNamespace(state=SimpleNamespace(epoch=number, iteration=number, epoch_length=1, max_epochs=0)))
        else:
            torch.save({"network": weights.state_dict()}, folder / "checkpoint_epoch=1.pt")
        os.write(said, f"{number}\n".encode())


def main(folder: Path, kills: int, way: str) -> None:
    """Kill so often, look after each, and print the figures."""
    torch.set_num_threads(1)  # threads do not live on in a forked process, and waiting for them would not end
    draw, lost, inside, reached, behind = random.Random(0), 0, 0, 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(kills):
        hear, said = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(folder, reached + 1, way, said)
        os.close(said)
        begun = time.monotonic()
        text = os.read(hear, 100)  # the first save of this child is done
        time.sleep(draw.uniform(0, 3) * (time.monotonic() - begun))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(hear, 10000):
            text += more
        os.close(hear)
        said_last = int(text.split()[-1])
        inside += any(folder.glob(".*.tmp"))
        try:
            tensor = load_checkpoint(newest_checkpoint(folder))["network"]["tensor"]
            found = int(tensor[0])
            if not bool((tensor == found).all()) or (way == "atomic" and found < said_last):
                lost += 1
            behind += found > said_last
        except SystemExit:
            lost += 1
        reached = said_last + 1
    print(json.dumps({"kills": kills, "lost": lost, "inside": inside, "kept": len(checkpoints(folder))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
