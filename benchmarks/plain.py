"""The project's networks as they were published: an operator at a time, which is what everything is compared with."""

from __future__ import annotations

import copy

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from mgcc_monai.losses import CrossConsistencyLoss, SupervisedLoss
from mgcc_monai.networks import MGCC
from mgcc_monai.networks.upsampling import UpsampledConv2d

__all__ = ["SMALL", "Step", "mgcc", "plain"]

SMALL = (16, 32, 64, 128, 256)


class _TwoSteps(UpsampledConv2d):
    """Upsampling, then a convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upsampled = nn.functional.interpolate(x, scale_factor=2.0)
        return nn.functional.conv2d(upsampled, self.weight, self.bias, padding=1)


def plain(network: nn.Module) -> nn.Module:
    """Return a copy whose upsampling and convolutions are two operators."""
    network = copy.deepcopy(network)
    for part in network.modules():
        if type(part) is UpsampledConv2d:
            part.__class__ = _TwoSteps
        elif isinstance(part, Upsample2D):
            part.__class__ = Upsample2D
    return network


def mgcc(channels: tuple[int, ...] = SMALL, **options: object) -> MGCC:
    """Return a network with statistics unlike those of an untrained one."""
    torch.manual_seed(0)
    network = MGCC(channels=channels, **options)
    for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
    return network


class Step:
    """A training step of the segmenter.

    Args:
        network: the network.
        images: labelled and unlabelled images in a batch.
        side: of the images, in pixels.
        device: of the computation.
        amp: bfloat16 autocast.
        channels_last: memory format.
        fused: the optimizer's fused kernel.
    """

    def __init__(
        self,
        network: nn.Module,
        images: tuple[int, int] = (4, 4),
        side: int = 128,
        device: str = "cpu",
        amp: bool = False,
        channels_last: bool = False,
        fused: bool = False,
    ) -> None:
        self.amp, self.device = amp, device
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device).to(memory_format=form).train()
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=fused)
        auxiliary = len(getattr(network, "auxiliary_decoders", ())) or 3
        self.loss = CrossConsistencyLoss(SupervisedLoss(), consistency_weight=3.0, auxiliary=auxiliary)
        torch.manual_seed(1)
        self.image = torch.randn(sum(images), 1, side, side, device=device).to(memory_format=form)
        self.label = (torch.rand(images[0], 1, side, side, device=device) > 0.8).float()

    def __call__(self) -> None:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            loss = self.loss(self.network(self.image), self.label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
