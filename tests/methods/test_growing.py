"""Laws of growing images: which size when, outputs at the images' size, and one clock that a checkpoint holds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mgcc_monai.methods.growing import GrowingInferer, growing_scale


def test_scales_take_equal_parts_and_full_size_the_rest():
    found = [growing_scale(step, 100, [0.5, 0.75], 0.6) for step in range(130)]
    assert found == [0.5] * 30 + [0.75] * 30 + [1.0] * 70
    assert {growing_scale(step, 100, [], 0.5) for step in range(100)} == {1.0}


class Seen(nn.Module):
    """Gives back its images, and remembers their size."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.size = tuple(x.shape[2:])
        return [x, 2 * x]


@pytest.mark.parametrize(("step", "size"), [(0, (32, 48)), (49, (32, 48)), (50, (64, 96)), (1000, (64, 96))])
def test_the_network_sees_the_size_of_the_step_and_outputs_have_the_images(step, size):
    network, clock = Seen(), SimpleNamespace(last_epoch=step)
    image = torch.linspace(0, 1, 96).expand(2, 1, 64, 96)
    outputs = GrowingInferer(clock, 100)(image, network)
    assert network.size == size
    for factor, output in zip((1, 2), outputs, strict=True):
        assert output.shape == image.shape
        assert (output - factor * image).abs().max() < 0.03  # a ramp survives, up to its borders


def test_sides_are_multiples_of_the_networks_stride():
    network = Seen()
    GrowingInferer(SimpleNamespace(last_epoch=0), 100, scales=[0.4])(torch.zeros(1, 1, 80, 208), network)
    assert network.size == (32, 80)


@pytest.mark.parametrize("options", [{"scales": [0.0]}, {"scales": [1.5]}, {"until": 0}])
def test_what_is_no_fraction_is_refused(options):
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        GrowingInferer(SimpleNamespace(last_epoch=0), 100, **options)
