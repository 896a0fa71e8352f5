"""Files of a training run: checkpoints to go on from, and the best weights with what is needed to use them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import is_main_process, sha256, write_file, write_json
from mgcc_monai.security.weights import load_checkpoint, save_atomically

__all__ = ["BestWeights", "ResumableCheckpoint", "install_weights"]

logger = logging.getLogger(__name__)


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the files ``checkpoint_epoch=N.pt`` of a folder, oldest first."""
    found = [(re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", path.name), path) for path in Path(folder).glob("*.pt")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


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
    """Save all that training needs to go on, at the end of epochs, and go on from it when asked.

    The file is another than the best weights; it holds the states of ``objects``, the trainer's progress and the
    evaluator's best metric. It is written beside its place and moved into it, and the one before is kept.

    Args:
        folder: where the files ``checkpoint_epoch=N.pt`` lie.
        objects: name to object with ``state_dict``: network, optimizer, lr_scheduler, ema. None is left out, for parts
            that a config switches off.
        evaluator: the validation engine, whose best metric is kept too.
        resume: start from the newest checkpoint.
        max_iterations: length of the training that the schedules go by; a resumed run must have the same.
        interval: epochs between two saves; the last epoch is always saved.
        keep: number of files kept.
        device: device that tensors are read to.

    Raises:
        MGCCError: at the start, when ``resume`` is set and there is no checkpoint, or it is of another run.
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
    ) -> None:
        self.folder = Path(folder)
        self.objects = {name: thing for name, thing in objects.items() if thing is not None}
        self.evaluator = evaluator
        self.resume = resume
        self.max_iterations = max_iterations
        self.interval = max(1, int(interval))
        self.keep = max(1, int(keep))
        self.device = device

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind the handlers whose work is to be saved."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save, if this epoch is one to save, and remove the files beyond those to keep."""
        state = engine.state
        if state.epoch % self.interval and state.epoch != state.max_epochs or not is_main_process():
            return
        content = {name: thing.state_dict() for name, thing in self.objects.items()}
        content["progress"] = {
            "iteration": state.iteration,
            "epoch": state.epoch,
            "epoch_length": state.epoch_length,
            "max_iterations": self.max_iterations,
        }
        if self.evaluator is not None:
            content["best"] = {
                "metric": float(self.evaluator.state.best_metric),
                "epoch": int(self.evaluator.state.best_metric_epoch),
            }
        save_atomically(content, self.folder / f"checkpoint_epoch={state.epoch}.pt")
        for path in checkpoints(self.folder)[: -self.keep]:
            path.unlink()

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
        for name, thing in self.objects.items():
            try:
                thing.load_state_dict(content[name])
            except (KeyError, RuntimeError, ValueError) as error:
                reason = str(error).strip().splitlines()[0]
                raise MGCCError(
                    f"{newest}: '{name}' does not fit this run ({reason}); resume with the settings that the run "
                    "was started with."
                ) from None
        engine.state.iteration, engine.state.epoch = progress["iteration"], progress["epoch"]
        if self.evaluator is not None and "best" in content:
            self.evaluator.state.best_metric = content["best"]["metric"]
            self.evaluator.state.best_metric_epoch = content["best"]["epoch"]
        logger.info("Resumed from %s, epoch %d.", newest, progress["epoch"])


class BestWeights:
    """Keep the network's weights of the best validation, beside an ``inference.json`` that uses them as they are.

    Args:
        network: the network.
        record: the :class:`mgcc_monai.handlers.RunRecord` of this run, which knows the settings.
        threshold_metric: name of the validation metric that is the best threshold, stored with the weights.
    """

    def __init__(self, network: torch.nn.Module, record: Any, threshold_metric: str = "val_threshold") -> None:
        self.network = network
        self.record = record
        self.threshold_metric = threshold_metric

    def attach(self, engine: Engine) -> None:
        """Attach to the validation engine."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save if this validation is the best so far."""
        state = engine.state
        if state.best_metric_epoch != state.epoch or not is_main_process():
            return
        save_atomically(self.network.state_dict(), self.record.folder / "model.pt")
        threshold = float(state.metrics.get(self.threshold_metric, 0.5))
        best = {"epoch": int(state.epoch), state.key_metric_name: float(state.best_metric), "threshold": threshold}
        self.record.write_inference(threshold)
        self.record.update(best=best)


def install_weights(folder: str, models: str) -> Path | None:
    """Put a run's best weights into the bundle in one step, and keep the ones before.

    ``model.pt`` and its ``inference.json`` go to ``models``; an older ``model.pt`` becomes ``model.previous.pt``.

    Args:
        folder: the run's segmentation folder.
        models: the bundle's folder of weights.

    Returns:
        the installed file; None where the folder cannot be written, which is logged.
    """
    source, target = Path(folder) / "model.pt", Path(models) / "model.pt"
    if not is_main_process() or not source.is_file():
        return None
    settings = json.loads((Path(folder) / "inference.json").read_text())
    settings["bundle_root"] = str(target.parent.absolute())
    try:
        if target.is_file() and sha256(target) != sha256(source):
            write_file(target.with_name("model.previous.pt"), target.read_bytes())
        write_file(target, source.read_bytes())
        write_json(target.with_name("inference.json"), settings)
    except MGCCError as error:
        logger.warning("The weights stay in %s alone. %s", folder, error)
        return None
    return target
