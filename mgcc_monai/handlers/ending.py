"""The end of a training: after exactly the iterations asked for, and never without a last validation."""

from __future__ import annotations

from ignite.engine import Engine, Events

__all__ = ["TrainingEnd", "planned_iterations"]


def planned_iterations(engine: Engine, max_iterations: int | None) -> int:
    """Return the iterations that a trainer takes in all.

    They are ``max_iterations`` where its last epoch is the one that they end in. A client that sets another
    ``max_epochs`` gets whole epochs; the schedules stay at their end then.

    Args:
        engine: the trainer, which knows its epochs and their length.
        max_iterations: the length that the schedules go by; None for whole epochs.
    """
    length, whole = engine.state.epoch_length, engine.state.max_epochs * engine.state.epoch_length
    return max_iterations if max_iterations is not None and whole - length < max_iterations <= whole else whole


class TrainingEnd:
    """End a training after exactly ``max_iterations``, its last epoch shorter, and validate once it has ended.

    The last validation is made where the interval between validations has left it out.

    Args:
        evaluator: the validation engine.
        max_iterations: length of the training.
    """

    def __init__(self, evaluator: Engine, max_iterations: int) -> None:
        self.evaluator, self.max_iterations = evaluator, int(max_iterations)
        self.validated = -1  # the iteration that the trainer was at

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind the handlers that validate or stop it and before the one that saves."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.shorten)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.evaluator.add_event_handler(Events.COMPLETED, self.note, engine)

    def shorten(self, engine: Engine) -> None:
        """Behind the last iteration, end an epoch that would be longer."""
        state = engine.state
        if state.iteration == planned_iterations(engine, self.max_iterations) and state.iteration % state.epoch_length:
            engine.terminate_epoch()

    def note(self, evaluator: Engine, trainer: Engine) -> None:
        """Note that the weights of this iteration were validated."""
        self.validated = trainer.state.iteration

    def __call__(self, engine: Engine) -> None:
        """Behind the last epoch, validate unless that was done."""
        last = engine.should_terminate or engine.state.epoch >= engine.state.max_epochs
        if last and self.validated != engine.state.iteration:
            self.evaluator.run(engine.state.epoch)
