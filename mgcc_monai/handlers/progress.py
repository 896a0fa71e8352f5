"""The terminal while it trains."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from mgcc_monai.distributed import is_main_process
from mgcc_monai.handlers.ending import planned_iterations
from mgcc_monai.progress import progress_bar

__all__ = ["BatchProgress", "TrainingProgress"]


class TrainingProgress:
    """One progress bar over the iterations of a training, with its losses and the latest validation.

    Args:
        evaluator: the validation engine, whose key metric is shown.
        loss_function: a loss with ``parts``, a dict of its parts' values.
        name: what stands before the bar.
        max_iterations: length of the training; None for whole epochs.
    """

    def __init__(
        self,
        evaluator: Engine | None = None,
        loss_function: Any = None,
        name: str = "training",
        max_iterations: int | None = None,
    ) -> None:
        self.evaluator, self.loss_function, self.name = evaluator, loss_function, name
        self.max_iterations = max_iterations
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.TERMINATE, self.close)

    def open(self, engine: Engine) -> None:
        """Show the bar once, from where a resumed run goes on."""
        if self.bar is not None:
            return
        total = planned_iterations(engine, self.max_iterations)
        self.bar = progress_bar(
            total=total, initial=engine.state.iteration, desc=self.name, unit="it", disable=not is_main_process()
        )

    def __call__(self, engine: Engine) -> None:
        """Move on by one iteration."""
        if self.bar is None:
            return
        output = engine.state.output
        shown = {"loss": float((output[0] if isinstance(output, list) else output)["loss"])}
        shown.update(getattr(self.loss_function, "parts", {}))
        if self.evaluator is not None and self.evaluator.state.best_metric_epoch > 0:
            name = self.evaluator.state.key_metric_name
            if name in self.evaluator.state.metrics:
                shown[name] = self.evaluator.state.metrics[name]
            shown["best"] = self.evaluator.state.best_metric
        self.bar.set_postfix({key: f"{float(value):.3g}" for key, value in shown.items()}, refresh=False)
        self.bar.update(1)

    def close(self, engine: Engine) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class BatchProgress:
    """A progress bar over the batches of an evaluation or inference.

    Args:
        name: what stands before the bar.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.bar and self.bar.update(1))
        engine.add_event_handler(Events.COMPLETED, lambda _: self.bar and self.bar.close())

    def open(self, engine: Engine) -> None:
        """Show the bar."""
        self.bar = progress_bar(
            total=engine.state.epoch_length, desc=self.name, unit="batch", disable=not is_main_process()
        )
