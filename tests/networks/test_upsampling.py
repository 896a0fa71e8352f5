"""Laws of the fused upsampling: it is the two operators, in values, gradients and state."""

from __future__ import annotations

import diffusers
import pytest
import torch
from torch import nn

from mgcc_monai.networks.blocks import UpBlock
from mgcc_monai.networks.upsampling import UpsampledConv2d, fuse_upsampling


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The published form, an operator at a time."""
    return nn.functional.conv2d(nn.functional.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8)])
def test_value_and_gradients_are_those_of_the_two_operators(size):
    torch.manual_seed(0)
    layer = UpsampledConv2d(3, 4, 3, padding=1).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    wanted, found = plain(x, layer.weight, layer.bias), layer(x)
    upstream = torch.randn_like(wanted)
    inputs = (x, layer.weight, layer.bias)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_an_asymmetric_kernel_is_not_mirrored():
    """One bright pixel and a kernel that looks one pixel to the left and up: the bright square moves right and down."""
    layer = UpsampledConv2d(1, 1, 3, padding=1, bias=False)
    layer.weight.data.zero_()
    layer.weight.data[0, 0, 0, 0] = 1.0
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1.0
    wanted = torch.zeros(6, 6)
    wanted[3:5, 3:5] = 1.0
    assert torch.equal(layer(x)[0, 0], wanted)


def test_the_state_is_that_of_the_published_block():
    published = nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
    )
    block = UpBlock(6, 3)
    block.load_state_dict(published.state_dict())
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x), published(x))


@pytest.mark.parametrize("kind", ["vae", "unet"])
def test_networks_of_diffusers_give_the_same_with_it(kind):
    torch.manual_seed(0)
    if kind == "vae":
        levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        network = diffusers.AutoencoderKL(1, 1, **levels, block_out_channels=(8, 8), norm_num_groups=4)
        call = lambda x: network.decode(x[:, :4], return_dict=False)[0]  # noqa: E731
    else:
        levels = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        network = diffusers.UNet2DModel(8, 4, 4, **levels, block_out_channels=(8, 8), norm_num_groups=4)
        call = lambda x: network(x, torch.tensor([7, 500]), return_dict=False)[0]  # noqa: E731
    x = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    names = list(network.state_dict())
    wanted = call(x)
    fuse_upsampling(network)
    found = call(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, wanted) and list(network.state_dict()) == names
