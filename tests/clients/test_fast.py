"""The fast routes give the network's probabilities, a wrong one is not taken, and the evaluator is left as it was."""

from __future__ import annotations

import importlib.util
import logging

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from mgcc_monai.interop import fast
from mgcc_monai.interop.fast import Compiled, FastRoute, fold
from mgcc_monai.networks import MGCC


@pytest.fixture
def network() -> MGCC:
    """With statistics that no untrained network has, so that folding them wrongly shows."""
    torch.manual_seed(0)
    network = MGCC(channels=(4, 6, 8), mixer_depths=(1, 1, 1), mixer_kernel_size=3)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    network.main_decoder.head.weight.data *= 20  # an untrained one gives nearly the same everywhere
    return network.eval()


@pytest.mark.parametrize("route", [fold, Compiled])
@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (5, 1, 16, 112)])
@torch.no_grad()
def test_a_route_gives_the_networks_logits(network, route, shape):
    image = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found, wanted = route(network)(image).sigmoid(), network(image).sigmoid()
    assert torch.allclose(found, wanted, rtol=0, atol=1e-4) and wanted.std() > 0.05
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_folding_leaves_only_the_norms_behind_an_activation(network):
    def norms(module: nn.Module) -> int:
        return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())

    assert norms(fold(network)) == norms(network.mixers) == 6


def run(network: nn.Module, images: int) -> list[nn.Module]:
    """The network that an evaluator has while it runs, and after."""
    seen = []
    engine = Engine(lambda engine, batch: seen.append(engine.network))
    engine.network = network
    FastRoute(images).attach(engine)
    engine.run([0])
    return [*seen, engine.network]


@pytest.mark.parametrize(("images", "installed", "kind"), [(100, True, Compiled), (1, True, MGCC), (100, False, MGCC)])
def test_the_route_is_chosen_by_what_pays_and_is_installed(network, monkeypatch, caplog, images, installed, kind):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    caplog.set_level(logging.INFO)
    used, after = run(network, images)
    assert isinstance(used, kind) and used is not network and after is network
    assert ("OpenVINO" if kind is Compiled else "folded batch normalisations") in caplog.text


def test_a_route_that_differs_or_fails_is_not_taken_and_said(network, monkeypatch, caplog):
    def wrong(network: nn.Module) -> nn.Module:
        return nn.Sequential(network, nn.Hardtanh(-0.01, 0.01))

    def broken(network: nn.Module) -> nn.Module:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(fast, "fold", wrong)
    monkeypatch.setattr(fast, "Compiled", broken)
    assert run(network, 100) == [network, network]
    assert "OpenVINO cannot run this network (no kernel)" in caplog.text and "probabilities differ by" in caplog.text
