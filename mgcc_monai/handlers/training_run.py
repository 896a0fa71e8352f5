"""Everything a training needs besides its method: one handler for all trainings of the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler, TensorBoardStatsHandler, from_engine

from mgcc_monai.distributed import is_main_process
from mgcc_monai.handlers.checkpoint import ResumableCheckpoint
from mgcc_monai.handlers.ema import EMA
from mgcc_monai.handlers.ending import TrainingEnd
from mgcc_monai.handlers.finite_guard import FiniteGuard
from mgcc_monai.handlers.memory import OutOfMemory
from mgcc_monai.handlers.progress import TrainingProgress
from mgcc_monai.handlers.seed import IterationSeed
from mgcc_monai.handlers.training_log import TrainingLog

__all__ = ["TrainingRun"]


class TrainingRun:
    """Seed, guard, log, show, end, save and resume a training, so that a config's handlers show the method alone.

    In the order in which they act: memory errors in plain words, a seed per iteration, a stop at NaN, ``training.log``
    and TensorBoard, a progress bar; and behind all handlers of the config the end after exactly ``max_iterations``,
    early stopping and the checkpoints. Put it first in the list of handlers, behind a ``LoadWeights`` only.

    Args:
        record: the :class:`mgcc_monai.runs.RunRecord`, which knows the folder and whether the run is resumed.
        state: name to object with ``state_dict``: all that a checkpoint holds; ``network`` is one of them.
        loader: the training's loader, or its sampler; told the epoch by ``set_epoch``.
        evaluator: the validation engine.
        loss_function: a loss with ``parts``, a dict of its parts' values.
        max_iterations: length of the training.
        seed: seed of the run.
        name: what stands before the progress bar.
        lower_for_memory: options to name when memory runs out, those that help most first.
        early_stopping: validations without a better key metric after which the training ends; 0 never ends it early.
        ema: the average of the weights, where there is one already.
        ema_decay: decay of an average to make, which validations then use; 0 for none.
        device: device that checkpoints are read to; by default the network's.
    """

    def __init__(
        self,
        record: Any,
        state: Mapping[str, Any],
        loader: Any,
        evaluator: Engine,
        loss_function: Any,
        max_iterations: int,
        seed: int,
        name: str = "training",
        lower_for_memory: Sequence[str] = ("batch_size", "image_size", "channels"),
        early_stopping: int = 0,
        ema: EMA | None = None,
        ema_decay: float = 0,
        device: Any = None,
    ) -> None:
        self.record, self.state, self.evaluator = record, dict(state), evaluator
        self.max_iterations = int(max_iterations)
        own = (parameter.device for parameter in self.state["network"].parameters())
        self.device = next(own, "cpu") if device is None else device
        self.first = [
            OutOfMemory(lower_for_memory),
            IterationSeed(seed, loader),
            FiniteGuard(self.state["network"], loss_function),
            TrainingProgress(evaluator, loss_function, name, self.max_iterations),
        ]
        if is_main_process():
            self.first.insert(3, TrainingLog(record.folder, evaluator, loss_function))
        if ema_decay:
            ema = self.state["ema"] = EMA(self.state["network"], float(ema_decay), evaluator)
        if ema is not None:
            self.first.append(ema)
        self.early_stop: EarlyStopHandler | None = None
        if early_stopping:
            self.early_stop = EarlyStopHandler(int(early_stopping), _key_metric)
        self._attached = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, and to its evaluator."""
        for handler in self.first:
            handler.attach(engine)
        if self.early_stop is not None:
            self.early_stop.set_trainer(engine)
            self.early_stop._handler.logger = engine.logger  # training.log, not the terminal
            self.early_stop.attach(self.evaluator)
            self.state["early_stopping"] = self.early_stop._handler
            engine.add_event_handler(Events.EPOCH_STARTED, self._stay_stopped)
        engine.add_event_handler(Events.STARTED, self._attach_last)

    def _attach_last(self, engine: Engine) -> None:
        """When the trainer starts, and every other handler is attached: what must see their work done."""
        if self._attached:
            return
        self._attached = True
        if is_main_process():  # which open their files at once
            folder = str(self.record.folder / "tensorboard")
            loss = from_engine(["loss"], first=True)
            TensorBoardStatsHandler(log_dir=folder, tag_name="train_loss", output_transform=loss).attach(engine)
            TensorBoardStatsHandler(log_dir=folder, iteration_log=False).attach(self.evaluator)
        TrainingEnd(self.evaluator, self.max_iterations).attach(engine)
        checkpoint = ResumableCheckpoint(
            self.record.folder / "checkpoints",
            self.state,
            self.evaluator,
            resume=self.record.resume,
            max_iterations=self.max_iterations,
            device=self.device,
            record=self.record,
        )
        checkpoint.attach(engine)  # ignite goes on to handlers added meanwhile, so its own work at STARTED follows

    def _stay_stopped(self, engine: Engine) -> None:
        """A training that was stopped early stays so when it is resumed."""
        if self.early_stop is not None and self.early_stop._handler.counter >= self.early_stop.patience:
            engine.terminate()


def _key_metric(evaluator: Engine) -> float:
    """The key metric of a validation."""
    return float(evaluator.state.metrics[evaluator.state.key_metric_name])
