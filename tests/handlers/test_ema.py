"""Laws of the averaged weights: their recursion, who sees them and for how long, and that a resumed run has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import EMA, ResumableCheckpoint


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(width, 2)


def weights(net: nn.Module) -> np.ndarray:
    return np.concatenate([weight.detach().double().numpy().ravel() for weight in net.parameters()])


def shadow(ema: EMA) -> np.ndarray:
    return np.concatenate([weight.double().numpy().ravel() for weight in ema.model.shadow_params])


def walk(net: nn.Module, iteration: int) -> None:
    """Move the weights as a step of training would, as a function of the iteration alone."""
    generator = torch.Generator().manual_seed(iteration)
    with torch.no_grad():
        for weight in net.parameters():
            weight += torch.randn(weight.shape, generator=generator)


def trainer(net: nn.Module, seen: list[np.ndarray] | None = None) -> Engine:
    def step(engine: Engine, batch: Any) -> None:
        walk(net, engine.state.iteration)
        if seen is not None:
            seen.append(weights(net))

    return Engine(step)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_recursion(decay):
    """Average + (1 - d) (weights - average), where d in step t is min(decay, t / (9 + t)) and nought at first."""
    net, seen = network(), []
    engine, ema = trainer(net, seen), EMA(net, decay)
    ema.attach(engine)
    average = weights(net)
    averages = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: averages.append(shadow(ema)))
    engine.run(range(30), max_epochs=2)
    assert len(seen) == 60
    for step, (now, found) in enumerate(zip(seen, averages), start=1):
        share = min(decay, step / (9 + step)) if step > 1 else 0.0
        average = share * average + (1 - share) * now
        np.testing.assert_allclose(found, average, atol=1e-5)
    if decay:
        assert not np.allclose(average, seen[-1], atol=0.05)


def test_decay_nought_is_the_weights_themselves():
    net = network()
    engine, ema = trainer(net), EMA(net, decay=0.0)
    ema.attach(engine)
    engine.run(range(5))
    np.testing.assert_allclose(shadow(ema), weights(net), atol=1e-6)


def test_training_does_not_feel_it():
    plain, averaged = network(), network()
    trainer(plain).run(range(7))
    engine = trainer(averaged)
    EMA(averaged).attach(engine)
    engine.run(range(7))
    assert np.array_equal(weights(plain), weights(averaged))


def validated(fault: str | None = None) -> tuple[nn.Module, EMA, Engine, list[np.ndarray]]:
    """A network in training, and a validation that notes its weights and fails as asked."""
    net, seen = network(), []

    def look(engine: Engine, batch: int) -> None:
        seen.append(weights(net))
        if fault == "iteration" and batch == 1:
            raise ValueError("planted")
        if fault == "user" and batch == 1:
            raise MGCCError("planted")

    evaluator = Engine(look)
    engine, ema = trainer(net), EMA(net, 0.9, evaluator)
    if fault == "started":
        evaluator.add_event_handler(Events.STARTED, raiser)
    ema.attach(engine)
    if fault == "completed":
        evaluator.add_event_handler(Events.COMPLETED, raiser)
    engine.run(range(8))
    return net, ema, evaluator, seen


def raiser(engine: Engine) -> None:
    raise ValueError("planted")


def test_validation_sees_the_average_and_training_its_own():
    net, ema, evaluator, seen = validated()
    before, average = weights(net), shadow(ema)
    after: list[np.ndarray] = []
    evaluator.add_event_handler(Events.COMPLETED, lambda _: after.append(weights(net)))  # behind the swap
    for _ in range(2):
        evaluator.run([0, 1, 2])
        assert np.array_equal(weights(net), before)
    assert len(seen) == 6
    assert all(np.array_equal(found, average.astype(np.float32)) for found in seen)
    assert not np.allclose(before, average, atol=0.05)
    assert np.array_equal(after[0], before) and np.array_equal(shadow(ema), average)


@pytest.mark.parametrize(
    "fault, error", [("iteration", ValueError), ("user", MGCCError), ("started", ValueError), ("completed", ValueError)]
)
def test_failing_validation_restores_the_weights_and_tells_its_own_error(fault, error):
    net, ema, evaluator, _ = validated(fault)
    before, average = weights(net), shadow(ema)
    with pytest.raises(error, match="planted"):
        evaluator.run([0, 1, 2])
    assert np.array_equal(weights(net), before)
    assert np.array_equal(shadow(ema), average)


def test_averaged_block_restores_even_after_an_error():
    net = network()
    ema = EMA(net)
    start = weights(net)
    walk(net, 1)
    before = weights(net)
    with ema.averaged() as lent:
        assert lent is net and np.array_equal(weights(net), start)
    with pytest.raises(KeyboardInterrupt), ema.averaged():
        raise KeyboardInterrupt
    assert np.array_equal(weights(net), before)


def resumable(folder: Path, epochs: int, resume: bool, seed: int, **options: Any) -> tuple[np.ndarray, np.ndarray, EMA]:
    net = network(seed, **options)
    engine, ema = trainer(net), EMA(net, decay=0.9)
    ema.attach(engine)
    ResumableCheckpoint(str(folder), {"network": net, "ema": ema}, resume=resume).attach(engine)
    engine.run(range(4), max_epochs=epochs)
    return weights(net), shadow(ema), ema


def test_resumed_average_is_that_of_a_run_that_never_stopped(tmp_path):
    """The steps count on too: the decay of a fresh average is smaller, and would be seen."""
    whole = resumable(tmp_path / "whole", 5, False, seed=0)
    resumable(tmp_path / "parts", 2, False, seed=0)
    resumed = resumable(tmp_path / "parts", 5, True, seed=99)
    assert np.array_equal(resumed[0], whole[0]) and np.array_equal(resumed[1], whole[1])
    assert resumed[2].model.optimization_step == whole[2].model.optimization_step == 20


def test_average_of_another_network_is_refused(tmp_path):
    resumable(tmp_path, 1, False, seed=0)
    with pytest.raises(ValueError, match="another network"):
        EMA(network(width=4)).load_state_dict(EMA(network(width=3)).state_dict())
    net = network()
    engine, other = trainer(net), EMA(network(width=4))
    ResumableCheckpoint(str(tmp_path), {"network": net, "ema": other}, resume=True).attach(engine)
    with pytest.raises(MGCCError, match="'ema' does not fit this run .*another network"):
        engine.run(range(4), max_epochs=2)


def test_loaded_state_is_a_copy():
    source, target = EMA(network(0)), EMA(network(1))
    target.load_state_dict(source.state_dict())
    assert np.array_equal(shadow(target), shadow(source))
    target.model.shadow_params[0].add_(1)
    assert not np.array_equal(shadow(target), shadow(source))
    assert sorted(source.state_dict()) == ["optimization_step", "shadow_params"], "a changed decay is the config's"


def test_statistics_of_batch_norms_are_averaged_swapped_and_restored():
    """Two steps by hand: the first copies, the second moves by 1 - min(decay, 2 / 11) = 9 / 11."""
    net = nn.BatchNorm1d(1)
    ema = EMA(net, decay=0.9)
    for mean in (3.0, 14.0):
        net.running_mean.fill_(mean)
        ema(None)
    with ema.averaged():
        assert net.running_mean.item() == pytest.approx(3 + 11 * 9 / 11)
    assert net.running_mean.item() == 14.0

    other = nn.BatchNorm1d(1)
    resumed = EMA(other, decay=0.9)
    resumed.load_state_dict(ema.state_dict())
    with resumed.averaged():
        assert other.running_mean.item() == pytest.approx(12.0)
    assert other.running_mean.item() == 0.0
