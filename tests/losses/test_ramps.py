"""Laws of the consistency ramp."""

from __future__ import annotations

import math

import pytest
from ignite.engine import Engine, Events
from monai.handlers import ParamSchedulerHandler

from mgcc_monai.losses import consistency_ramp


@pytest.mark.parametrize("stair", [1, 7, 150])
@pytest.mark.parametrize("fraction", [0.1, 0.75, 1.0, 1.5])
def test_rises_and_never_exceeds_the_weight(stair, fraction):
    settings = {"max_iterations": 400, "weight": 3.0, "ramp_fraction": fraction, "stair": stair}
    weights = [consistency_ramp(i, **settings) for i in range(1, 1001)]
    assert all(a <= b for a, b in zip(weights, weights[1:]))
    assert weights[0] == pytest.approx(3.0 * math.exp(-5))
    assert max(weights) == weights[-1] == 3.0, "clamped, also past the end of training"


def test_figures_on_the_way():
    """Half-way the exponent is -5/4; at four fifths -1/5."""
    settings = {"max_iterations": 1000, "weight": 7.0, "ramp_fraction": 0.5}
    assert consistency_ramp(1 + 250, **settings) == pytest.approx(7 * math.exp(-1.25))
    assert consistency_ramp(1 + 400, **settings) == pytest.approx(7 * math.exp(-0.2))
    assert consistency_ramp(1 + 499, **settings) < 7
    assert consistency_ramp(1 + 500, **settings) == 7


def test_ramp_ends_within_training_whatever_its_length():
    """The released code's does not, see defect 2: it gave a tenth of the weight to short trainings."""
    for length in (10, 60, 1000, 20000):
        assert consistency_ramp(length, max_iterations=length) == 7.0
        assert consistency_ramp(1 + length // 2, max_iterations=length) < 7.0


@pytest.mark.parametrize("stair", [1, 7, 150])
def test_stands_still_within_a_stair(stair):
    weights = [consistency_ramp(i, max_iterations=600, ramp_fraction=1.0, stair=stair) for i in range(1, 601)]
    for i in range(1, 600):
        assert (weights[i] != weights[i - 1]) == (i % stair == 0)


@pytest.mark.parametrize("step", [0, 1, 5, 100])
def test_no_ramp(step):
    assert consistency_ramp(step, max_iterations=10, weight=2.0, ramp_fraction=0) == 2.0


def test_zero_weight_stays_zero():
    assert {consistency_ramp(i, max_iterations=10, weight=0.0) for i in range(1, 20)} == {0.0}


@pytest.mark.parametrize("bad", [{"max_iterations": 0}, {"stair": 0}, {"ramp_fraction": -0.1}])
def test_bad_lengths_are_told(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        consistency_ramp(1, **{"max_iterations": 10, **bad})


def test_weight_in_force_during_an_iteration():
    """As the bundle wires it, an iteration computes with its own weight, the first one with the lowest."""
    now, used = [math.nan], []
    engine = Engine(lambda engine, batch: used.append(now[0]))
    ParamSchedulerHandler(
        parameter_setter=lambda weight: now.__setitem__(0, weight),
        value_calculator=consistency_ramp,
        vc_kwargs={"max_iterations": 8, "weight": 7.0, "ramp_fraction": 0.5},
        event=Events.ITERATION_STARTED,
    ).attach(engine)
    engine.run(range(4), max_epochs=2)
    ramp = [7 * math.exp(-5 * (1 - t) ** 2) for t in (0, 0.25, 0.5, 0.75)]
    assert used == pytest.approx([*ramp, 7, 7, 7, 7])
