"""Weights into a network: half precision, safetensors, and those of the main decoder alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import LoadWeights
from mgcc_monai.networks import MGCC
from mgcc_monai.weights import check_fits, publish, weights_in

SMALL = {"channels": (4, 6, 8), "mixer_depths": (1, 1), "mixer_kernel_size": 3}


def alone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("auxiliary_decoders")}


def test_published_weights_in_half_precision_fill_a_network_in_its_own(tmp_path: Path) -> None:
    source, network = MGCC(**SMALL), MGCC(**SMALL)
    half = {name: value.half() if value.is_floating_point() else value for name, value in source.state_dict().items()}
    publish(half, tmp_path / "model.safetensors")
    LoadWeights(str(weights_in(tmp_path)), network)(None)
    for name, value in network.state_dict().items():
        assert value.dtype == source.state_dict()[name].dtype
        torch.testing.assert_close(value, source.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_weights_without_auxiliary_decoders_start_them_as_copies_of_the_main_one(tmp_path: Path) -> None:
    source, network = MGCC(**SMALL), MGCC(**SMALL)
    torch.save(alone(source.state_dict()), tmp_path / "model.pt")
    check_fits(network, tmp_path / "model.pt")
    LoadWeights(str(tmp_path / "model.pt"), network)(None)
    for decoder in (network.main_decoder, *network.auxiliary_decoders):
        for name, value in decoder.state_dict().items():
            assert torch.equal(value, source.main_decoder.state_dict()[name])
    other = {**alone(source.state_dict()), "auxiliary_decoders.0.a": torch.zeros(1)}
    torch.save(other, tmp_path / "model.pt")
    with pytest.raises(MGCCError, match="auxiliary_decoders"):
        check_fits(network, tmp_path / "model.pt")


def test_a_trained_file_comes_before_a_published_one(tmp_path: Path) -> None:
    assert weights_in(tmp_path).name == "model.pt"
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path).name == "model.safetensors"
    (tmp_path / "model.pt").touch()
    assert weights_in(tmp_path).name == "model.pt"
