"""Stop when validation no longer gets better."""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

__all__ = ["EarlyStop"]

logger = logging.getLogger(__name__)


class EarlyStop:
    """End a training when the evaluator's key metric has not improved for a number of epochs.

    MONAI's handler of this name must be given the trainer whose handler it is, which a config cannot say without a
    circle; this one attaches to the trainer and asks the evaluator.

    Args:
        evaluator: the validation engine.
        patience: epochs without a new best; 0 never stops.
    """

    def __init__(self, evaluator: Engine, patience: int = 0) -> None:
        self.evaluator, self.patience = evaluator, int(patience)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind the validation handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_STARTED, self, 1)  # one that was stopped so and resumed has ended

    def __call__(self, engine: Engine, begun: int = 0) -> None:
        """Stop if the best epoch lies too far back; of the epochs counted so far, ``begun`` have not ended."""
        best, done = self.evaluator.state.best_metric_epoch, engine.state.epoch - begun
        if self.patience > 0 and best > 0 and done - best >= self.patience:
            for log in (logger, engine.logger):
                log.info("Stopped at epoch %d: no better validation since epoch %d.", done, best)
            engine.terminate()
