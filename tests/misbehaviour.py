"""A handler that lets a run go wrong at a given iteration, for tests of what then happens."""

from __future__ import annotations

import os
import signal
import time

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from mgcc_monai.distributed import rank_and_size


class At:
    """Go wrong once, at an event of one rank.

    Args:
        way: a signal's name, "raise", "hang", "nan image", "nan gradient" or "infinite loss".
        event: of the engine.
        iteration: in which it happens, counted from 1; None for any.
        epoch: in which it happens; None for any.
        rank: the process.
    """

    def __init__(
        self,
        way: str,
        event: str = "ITERATION_STARTED",
        iteration: int | None = None,
        epoch: int | None = None,
        rank: int = 0,
    ) -> None:
        self.way, self.event, self.iteration, self.epoch, self.rank = way, event, iteration, epoch, rank
        self.done = False

    def attach(self, engine: Engine) -> None:
        """Attach to an engine."""
        late = self.way == "infinite loss"
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED if late else Events[self.event], self)

    def __call__(self, engine: Engine) -> None:
        """Go wrong."""
        here = self.iteration in (None, engine.state.iteration) and self.epoch in (None, engine.state.epoch)
        if self.done or not here or rank_and_size()[0] != self.rank:
            return
        self.done = True
        if "MISBEHAVED_AT" in os.environ:
            with open(os.environ["MISBEHAVED_AT"], "w") as file:
                file.write(str(time.time()))
        if self.way.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.way])
        elif self.way == "raise":
            raise RuntimeError("gone wrong on purpose")
        elif self.way == "hang":
            while True:
                time.sleep(1)
        elif self.way == "nan image":
            for name in ("image", "unlabeled_image"):
                if name in engine.state.batch:
                    engine.state.batch[name] = torch.full_like(torch.as_tensor(engine.state.batch[name]), torch.nan)
        elif self.way == "nan gradient":
            weight = next(iter(engine.network.parameters()))
            weight.register_hook(lambda gradient: gradient * torch.nan)
        elif self.way == "infinite loss":
            pred = engine.state.output["pred"]
            engine.state.output["pred"] = [x * 1e38 for x in pred] if isinstance(pred, list) else pred * 1e38
