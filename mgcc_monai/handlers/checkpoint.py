"""Checkpoints of a training run, to go on from."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from mgcc_monai.distributed import is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.handlers.ending import planned_iterations
from mgcc_monai.handlers.preemption import Preempted, StopSignals
from mgcc_monai.weights import load_checkpoint, save_atomically

__all__ = ["ResumableCheckpoint"]

logger = logging.getLogger(__name__)


_NAME = re.compile(r"checkpoint_epoch=(\d+)(?:_iteration=(\d+))?\.pt")


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first.

    ``checkpoint_epoch=N.pt`` was saved after N epochs and their validation, ``checkpoint_epoch=N_iteration=I.pt`` in
    the epoch after it, when the run was told to stop.
    """
    found = [(_NAME.fullmatch(path.name), path) for path in Path(folder).glob("*.pt")]
    return [path for *_, path in sorted((int(match[1]), int(match[2] or 0), path) for match, path in found if match)]


def newest_checkpoint(folder: str | Path) -> Path:
    """Return the checkpoint to go on from.

    Raises:
        MGCCError: when there is none.
    """
    files = checkpoints(folder)
    if not files:
        raise MGCCError(
            f"{folder}: --resume true, but there is no checkpoint_epoch=N.pt in it; "
            "give the --output_dir of the run to go on with, or leave --resume out to start anew."
        )
    return files[-1]


class ResumableCheckpoint:
    """Save all that training needs to go on, at the end of epochs and when told to stop, and go on from it when asked.

    The file is another than the best weights; it holds the states of ``objects``, the trainer's progress and the
    evaluator's best metric. It is written beside its place and moved into it, and the one before is kept.

    SIGTERM and SIGINT (Ctrl-C) end the run after the iteration that they come in, in a training or a validation, with
    a checkpoint and exit code 143 or 130. A run that goes on from there is the one that was never stopped; a
    validation that was cut off is made then.

    Args:
        folder: where the files lie; see :func:`checkpoints`.
        objects: name to object with ``state_dict``: network, optimizer, lr_scheduler, ema. None is left out, for parts
            that a config switches off.
        evaluator: the validation engine, whose best metric is kept too.
        resume: start from the newest checkpoint.
        max_iterations: length of the training that the schedules go by; a resumed run must have the same.
        interval: epochs between two saves; the last epoch is always saved.
        keep: number of files kept.
        device: device that tensors are read to.
        record: the :class:`mgcc_monai.runs.RunRecord`, which is told how many iterations are saved.

    Raises:
        MGCCError: at the start, when ``resume`` is set and there is no checkpoint, or it is of another run.
        Preempted: after SIGTERM or SIGINT.
    """

    def __init__(
        self,
        folder: str,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        resume: bool = False,
        max_iterations: int | None = None,
        interval: int = 1,
        keep: int = 2,
        device: str | torch.device = "cpu",
        record: Any = None,
    ) -> None:
        self.folder = Path(folder)
        self.objects = {name: thing for name, thing in objects.items() if thing is not None}
        self.evaluator = evaluator
        self.resume = resume
        self.max_iterations = max_iterations
        self.interval = max(1, int(interval))
        self.keep = max(1, int(keep))
        self.device, self.record = device, record
        self.signals = StopSignals()

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind the handlers whose work is to be saved."""
        engine.add_event_handler(Events.STARTED, self.signals.listen)
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop_if_told, engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.stop_if_told, engine)

    def __call__(self, engine: Engine) -> None:
        """Save, if this epoch is one to save."""
        state = engine.state
        if state.epoch % self.interval == 0 or state.epoch == state.max_epochs or engine.should_terminate:
            self.save(engine, f"checkpoint_epoch={state.epoch}.pt", state.epoch)

    def stop_if_told(self, caller: Engine, trainer: Engine) -> None:
        """After an iteration of the trainer or the evaluator: save and end the run, if a signal has come.

        Several processes stop after an iteration of the trainer alone, as their validations may differ in length.
        """
        self.signals.heartbeat()
        if caller is not trainer and rank_and_size()[1] > 1:
            return
        signum = self.signals.poll()
        if not signum:
            return
        for thing in self.objects.values():
            if hasattr(thing, "restore"):  # averaged weights stand in the network while it is validated
                thing.restore()
        done = trainer.state.epoch - 1
        path = self.save(trainer, f"checkpoint_epoch={done}_iteration={trainer.state.iteration}.pt", done)
        self.signals.restore()
        trainer.logger.info("Saved %s.", path)
        if is_main_process():
            tqdm.write(f"Saved {path}; go on with --resume true.", file=sys.stderr)  # on a line of its own
        raise Preempted(signum)

    def finish(self, engine: Engine) -> None:
        """Behind the last epoch, which is saved: end the run if a signal has come, else give the signals back."""
        signum = self.signals.poll()
        self.signals.restore()
        if signum:
            raise Preempted(signum)

    def save(self, engine: Engine, name: str, epochs: int) -> Path:
        """Save all under a name, with the number of epochs that have ended, and remove files beyond those to keep."""
        path, state = self.folder / name, engine.state
        if not is_main_process():
            return path
        content = {name: thing.state_dict() for name, thing in self.objects.items()}
        if getattr(engine, "scaler", None) is not None:
            content["scaler"] = engine.scaler.state_dict()
        content["progress"] = {
            "iteration": state.iteration,
            "epoch": epochs,
            "epoch_length": state.epoch_length,
            "max_iterations": self.max_iterations,
        }
        if self.evaluator is not None:
            content["best"] = {
                "metric": float(self.evaluator.state.best_metric),
                "epoch": int(self.evaluator.state.best_metric_epoch),
            }
        save_atomically(content, path)
        if self.record is not None:
            self.record.update(iterations=state.iteration, max_iterations=self.max_iterations)
        for old in [*checkpoints(self.folder)[: -self.keep], *self.folder.glob(".checkpoint_epoch=*.tmp")]:
            old.unlink(missing_ok=True)  # the latter are what a killed process has left
        return path

    def load(self, engine: Engine) -> None:
        """Restore the newest checkpoint into the objects, the trainer and the evaluator."""
        newest = newest_checkpoint(self.folder)
        content = load_checkpoint(newest, map_location=self.device)
        progress = content["progress"]
        wanted = {"epoch_length": engine.state.epoch_length, "max_iterations": self.max_iterations}
        for name, value in wanted.items():
            if progress[name] != value:
                raise MGCCError(
                    f"{newest}: was written with {name} {progress[name]}, this run has {value}; the schedules go by "
                    "it, so resume with the settings that the run was started with."
                )
        scaler = {"scaler": engine.scaler} if getattr(engine, "scaler", None) is not None else {}
        for name, thing in {**self.objects, **scaler}.items():
            try:
                thing.load_state_dict(content[name])
            except (KeyError, RuntimeError, ValueError) as error:
                reason = one_line(error)
                raise MGCCError(
                    f"{newest}: '{name}' does not fit this run ({reason}); resume with the settings that the run "
                    "was started with."
                ) from None
        engine.state.iteration, engine.state.epoch = progress["iteration"], progress["epoch"]
        if self.evaluator is not None and "best" in content:
            self.evaluator.state.best_metric = content["best"]["metric"]
            self.evaluator.state.best_metric_epoch = content["best"]["epoch"]
        for log in (logger, engine.logger):
            log.info("Resumed from %s, iteration %d.", newest, progress["iteration"])
        going = progress["epoch"] < engine.state.max_epochs
        end = min((progress["epoch"] + 1) * progress["epoch_length"], planned_iterations(engine, self.max_iterations))
        cut_off = going and progress["iteration"] >= end  # in the end of an epoch
        if cut_off or (not going and content.get("best", {"epoch": 1})["epoch"] < 1):  # or ended without a validation
            engine.state.epoch += cut_off
            engine.fire_event(Events.EPOCH_COMPLETED)
