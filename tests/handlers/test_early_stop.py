"""Training ends when, and only when, validation has not improved for long enough."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from mgcc_monai.handlers import EarlyStop


def epochs_trained(scores: list[float], patience: int, interval: int = 1) -> int:
    """Train over given validation scores, one an epoch, and say how many epochs it took."""
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1
    trainer = Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED(every=interval))
    def validate(engine: Engine) -> None:
        score = scores[engine.state.epoch - 1]
        if score > evaluator.state.best_metric:
            evaluator.state.best_metric, evaluator.state.best_metric_epoch = score, engine.state.epoch

    EarlyStop(evaluator, patience).attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    return trainer.state.epoch


@pytest.mark.parametrize("patience, stop", [(1, 3), (2, 6), (3, 7), (4, 8), (9, 10), (0, 10)])
def test_stops_after_patience_epochs_without_a_better_one(patience, stop):
    """Better at epochs 1, 2 and 4 alone."""
    scores = [0.1, 0.2, 0.2, 0.4, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4]
    assert epochs_trained(scores, patience) == stop


def test_a_better_one_in_time_starts_the_count_anew():
    assert epochs_trained([0.1, 0.0, 0.2, 0.1, 0.3, 0.2, 0.4, 0.3], patience=2) == 8


def test_no_stop_before_the_first_validation():
    """Validation comes every fifth epoch; the epochs before the first one are not epochs without a better one."""
    assert epochs_trained([0.1] * 10, patience=3, interval=5) == 8
    assert epochs_trained([0.1] * 4, patience=1, interval=5) == 4
