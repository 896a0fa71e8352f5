"""The log of a training, beside its results."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

__all__ = ["TrainingLog"]


class TrainingLog:
    """Write ``training.log``: mean losses of each epoch, each validation, and what trainer and evaluator say.

    The engines get a logger of their own that writes to this file alone, so that nothing depends on how logging is
    set up and nothing of it comes to the terminal: ignite tells it of errors and times, other handlers of resumes and
    stops through ``engine.logger``. A resumed training goes on in the same file.

    Args:
        folder: where the file lies.
        evaluator: the validation engine.
        loss_function: a loss with ``parts``, a dict of its parts' values.
    """

    def __init__(self, folder: str, evaluator: Engine | None = None, loss_function: Any = None) -> None:
        self.file = Path(folder) / "training.log"
        self.evaluator, self.loss_function = evaluator, loss_function
        self.logger = logging.Logger("training", logging.INFO)
        self.logger.addHandler(logging.NullHandler())
        self.sums: Counter[str] = Counter()
        self.count = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handlers that log, validate or save."""
        engine.logger = self.logger
        engine.add_event_handler(Events.STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.evaluator is not None:
            self.evaluator.logger = self.logger
            self.evaluator.add_event_handler(Events.COMPLETED, self.validated)

    def open(self, engine: Engine) -> None:
        """Open the file, once."""
        if len(self.logger.handlers) == 1:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(self.file, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
            handler.handleError = lambda record: None  # a full disk is told by the next save
            self.logger.addHandler(handler)

    def add(self, engine: Engine) -> None:
        """Add up the losses of an iteration."""
        output = engine.state.output
        loss = float((output[0] if isinstance(output, list) else output)["loss"])
        self.sums.update({"loss": loss, **getattr(self.loss_function, "parts", {})})
        self.count += 1

    def __call__(self, engine: Engine) -> None:
        """Write the mean losses of the epoch, or of what this process has trained of it."""
        if self.count:
            means = {name: value / self.count for name, value in self.sums.items()}
            self.logger.info(
                "Epoch %d of %d, iteration %d, mean of %d iterations: %s",
                *(engine.state.epoch, engine.state.max_epochs, engine.state.iteration, self.count, _shown(means)),
            )
        self.sums, self.count = Counter(), 0

    def validated(self, evaluator: Engine) -> None:
        """Write the metrics of a validation, and the best so far."""
        state = evaluator.state
        self.logger.info(
            "Epoch %d, validation: %s; best %s %.5g in epoch %d",
            *(state.epoch, _shown(state.metrics), state.key_metric_name, state.best_metric, state.best_metric_epoch),
        )


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
