"""Laws of gradient clipping: a step is no longer than the largest norm allows, and keeps its direction."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import nn

from mgcc_monai.handlers import GradientClipping


def step(scale: float, max_norm: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of plain SGD with rate 1 by the stock trainer; returns how the weights moved, and their gradients."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    before = torch.cat([weight.detach().clone().flatten() for weight in network.parameters()])
    batch = {"image": torch.ones(4, 3) * scale, "label": torch.zeros(4, 2)}
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=nn.MSELoss(),
        inferer=SimpleInferer(),
        train_handlers=[] if max_norm is None else [GradientClipping(network, max_norm)],
    ).run()
    after = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    return after - before, torch.cat([weight.grad.flatten() for weight in network.parameters()])


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 7.0])
def test_long_steps_are_cut_to_the_norm_over_all_weights(max_norm):
    free, _ = step(100.0, None)
    moved, gradient = step(100.0, max_norm)
    assert float(free.norm()) > 10 * max_norm
    assert float(moved.norm()) == pytest.approx(max_norm, rel=1e-3)
    assert torch.allclose(moved / moved.norm(), free / free.norm(), atol=1e-4)
    assert torch.allclose(moved, -gradient, atol=1e-5)


def test_short_steps_stay_as_they_are():
    free, _ = step(0.1, None)
    assert 0 < float(free.norm()) < 1
    assert torch.equal(step(0.1, 1.0)[0], free)


def test_norm_may_come_from_the_command_line():
    assert float(step(100.0, "0.5")[0].norm()) == pytest.approx(0.5, rel=1e-3)


def test_with_a_gradient_scaler_it_is_the_real_gradients_that_are_clipped():
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [weight.detach().clone() for weight in network.parameters()]
    scaler.scale((100 * network(torch.ones(4, 3))).square().mean()).backward()
    GradientClipping(network, 0.5)(SimpleNamespace(amp=True, scaler=scaler, optimizer=optimizer))
    scaler.step(optimizer)
    moved = [after.detach() - old for after, old in zip(network.parameters(), before)]
    assert float(torch.cat([one.flatten() for one in moved]).norm()) == pytest.approx(0.5, rel=1e-3)
