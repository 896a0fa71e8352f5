"""Building blocks of the MGCC network: encoder and decoder blocks, ConvMixer stages, attention gates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from mgcc_monai.networks.upsampling import UpsampledConv2d

__all__ = ["ConvBlock", "ConvMixer", "Decoder", "MultiScaleAttentionGate", "UpBlock"]


class ConvBlock(nn.Sequential):
    """Two times 3 x 3 convolution, batch normalisation, ReLU; keeps height and width.

    Args:
        in_channels: channels of the input, BCHW.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Sequential):
    """Nearest-neighbour upsampling by two, then 3 x 3 convolution, batch normalisation, ReLU.

    Args:
        in_channels: channels of the input, BCHW.
        out_channels: channels of the output, B x out_channels x 2H x 2W.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers = {  # numbered as the published network's, whose upsampling is a layer of its own
            "1": UpsampledConv2d(in_channels, out_channels, kernel_size=3, padding=1),
            "2": nn.BatchNorm2d(out_channels),
            "3": nn.ReLU(inplace=True),
        }
        super().__init__(OrderedDict(layers))


class ConvMixerLayer(nn.Module):
    """Depthwise convolution with a residual connection, then a pointwise convolution, each with GELU and batch norm.

    Args:
        channels: channels of input and output, BCHW.
        kernel_size: odd size of the depthwise kernel.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels),
            nn.GELU(),
            nn.BatchNorm2d(channels),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=1), nn.GELU(), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix positions, then channels; BCHW to BCHW."""
        return self.pointwise(x + self.depthwise(x))


class ConvMixer(nn.Sequential):
    """A stage of ConvMixer layers, which gives the deepest features their global context.

    Args:
        channels: channels of input and output, BCHW.
        depth: number of layers.
        kernel_size: odd size of the depthwise kernels.

    Source:
        Trockman and Kolter 2022, "Patches Are All You Need?", equations 1 and 2; Tang et al. 2023 (arXiv 2305.09447).
    """

    def __init__(self, channels: int, depth: int, kernel_size: int) -> None:
        super().__init__(*(ConvMixerLayer(channels, kernel_size) for _ in range(depth)))


class MultiScaleAttentionGate(nn.Module):
    """Weighs skip features by a vote of a point, a neighbourhood and a dilated neighbourhood: ``x + x * vote(x)``.

    Args:
        channels: channels of input and output, BCHW.

    Source:
        Tang et al. 2022, "CMU-Net" (arXiv 2210.13012), multi-scale attention gate.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.local = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.dilated = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=2, dilation=2), nn.BatchNorm2d(channels))
        self.vote = nn.Sequential(nn.Conv2d(3 * channels, channels, 1), nn.BatchNorm2d(channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate skip features; BCHW to BCHW."""
        scales = torch.cat((self.point(x), self.local(x), self.dilated(x)), dim=1)
        return x + x * self.vote(torch.relu(scales))


class Decoder(nn.Module):
    """From the features of every level back to logits at full size, with a gate on every skip connection.

    Args:
        channels: channels of the encoder's levels, finest first.
        out_channels: channels of the logits.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        skips = list(channels[:-1])[::-1]
        deeper = list(channels[1:])[::-1]
        self.gates = nn.ModuleList(MultiScaleAttentionGate(skip) for skip in skips)
        self.ups = nn.ModuleList(UpBlock(deep, skip) for deep, skip in zip(deeper, skips))
        self.merges = nn.ModuleList(ConvBlock(2 * skip, skip) for skip in skips)
        self.head = nn.Conv2d(channels[0], out_channels, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Decode.

        Args:
            features: one BCHW tensor a level, finest first, each half the size of the one before.

        Returns:
            logits, B x out_channels x H x W at the size of the finest level.
        """
        x = features[-1]
        level = len(features) - 2
        for gate, up, merge in zip(self.gates, self.ups, self.merges):
            x = merge(torch.cat((gate(features[level]), up(x)), dim=1))
            level -= 1
        return self.head(x)
