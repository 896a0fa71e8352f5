"""Noting a signal and giving it back; the bars over a training and over batches."""

from __future__ import annotations

import os
import signal

import pytest
from ignite.engine import Engine, Events
from tqdm import tqdm

from mgcc_monai.handlers.preemption import StopSignals
from mgcc_monai.handlers.progress import BatchProgress, TrainingProgress


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_until_it_is_asked_for_and_then_given_back(number, capfd):
    before, signals = signal.getsignal(number), StopSignals()
    signals.listen()
    assert signal.getsignal(number) != before and signals.poll() == 0
    os.kill(os.getpid(), number)
    assert signals.poll() == number == signals.poll()
    assert f"{signal.Signals(number).name}: saving after this iteration" in capfd.readouterr().err
    signals.restore()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once():
    signals = StopSignals()
    signals.listen()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    signals.restore()


def test_the_bar_of_a_training_counts_iterations_and_shows_losses():
    class Loss:
        parts = {"supervised": 0.25}

    shown: list[tuple[int, int, str]] = []
    trainer = Engine(lambda engine, batch: [{"loss": 0.5}])
    progress = TrainingProgress(None, Loss(), "training", max_iterations=5)
    progress.attach(trainer)

    def note(engine: Engine) -> None:
        assert isinstance(progress.bar, tqdm)
        shown.append((progress.bar.n, progress.bar.total, progress.bar.postfix))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run(range(3), max_epochs=2)
    assert [count for count, *_ in shown] == [1, 2, 3, 4, 5, 6] and shown[0][1] == 5
    assert "loss=0.5" in shown[0][2] and "supervised=0.25" in shown[0][2] and progress.bar is None


def test_the_bar_of_an_evaluation_counts_batches():
    evaluator, progress = Engine(lambda engine, batch: None), BatchProgress("segmenting")
    progress.attach(evaluator)
    evaluator.run(range(4))
    assert progress.bar.n == progress.bar.total == 4 and progress.bar.desc.startswith("segmenting")
