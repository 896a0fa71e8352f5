"""The fastest way to run a trained segmenter on this machine, with the same result."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mgcc_monai.errors import one_line
from mgcc_monai.interop.export import TOLERANCE, compile_openvino
from mgcc_monai.networks.upsampling import UpsampledConv2d, upsampled_kernel

__all__ = ["Compiled", "FastRoute", "fold"]

logger = logging.getLogger(__name__)

_WORTH = 20  # images from which OpenVINO's two seconds of preparation pay


def fold(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode with its batch normalisations folded into convolutions.

    Upsampled convolutions become transposed ones with a fixed kernel. Processors with AVX-512 get channels last.

    Args:
        network: the network; what it holds outside ``nn.Sequential`` stays as it is.
    """
    folded = copy.deepcopy(network).eval()
    for part in [part for part in folded.modules() if isinstance(part, nn.Sequential)]:
        for name, following in zip(list(part._modules), list(part._modules)[1:]):
            conv, norm = part._modules[name], part._modules[following]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part._modules[name], part._modules[following] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            if isinstance(part._modules[name], UpsampledConv2d):
                part._modules[name] = _fixed(part._modules[name])
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        folded = folded.to(memory_format=torch.channels_last)
    return folded.requires_grad_(False)


def _fixed(conv: UpsampledConv2d) -> nn.ConvTranspose2d:
    fixed = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1)
    fixed.weight.data, fixed.bias.data = upsampled_kernel(conv.weight.data), conv.bias.data
    return fixed


class Compiled(nn.Module):
    """A network, compiled by OpenVINO in float32 for any batch and size.

    Args:
        network: the network in evaluation mode, from B1HW to BCHW.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        openvino = importlib.import_module("openvino")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing
            model = openvino.convert_model(network, example_input=torch.zeros(2, 1, 32, 48), input=[-1, 1, -1, -1])
        self._compiled = compile_openvino(model)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits; B1HW."""
        return torch.from_numpy(self._compiled(torch.as_tensor(image).contiguous().numpy())[0].copy())


class FastRoute:
    """Run an evaluator's network by the fastest route that is installed, and say which; on the CPU.

    That is OpenVINO, where it is installed and there are images enough, else the network with its batch normalisations
    folded. A route whose probabilities differ from the network's by more than 1e-4 is not taken. Put it behind the
    handler that loads the weights.

    Args:
        images: number of images to come.
    """

    def __init__(self, images: int) -> None:
        self.images = int(images)
        self._network: nn.Module | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.COMPLETED, self._restore)

    def __call__(self, engine: Engine) -> None:
        """Choose a route, and use it until the evaluator ends."""
        self._network = engine.network
        if all(parameter.device.type == "cpu" for parameter in self._network.parameters()):
            engine.network = self._route(self._network.eval())

    def _restore(self, engine: Engine) -> None:
        engine.network = self._network

    def _route(self, network: nn.Module) -> nn.Module:
        routes: list[tuple[str, Callable[[nn.Module], nn.Module]]] = [("folded batch normalisations", fold)]
        if self.images >= _WORTH and importlib.util.find_spec("openvino") is not None:
            routes.insert(0, ("OpenVINO", Compiled))
        for name, build in routes:
            try:
                route = build(network)
                off = _difference(network, route)
            except Exception as error:  # whatever a run time raises
                logger.warning("%s cannot run this network (%s).", name, one_line(error))
                continue
            if off <= TOLERANCE:
                logger.info("The network runs with %s.", name)
                return route
            logger.warning("%s is not used: its probabilities differ by %.1e.", name, off)
        return network


@torch.no_grad()
def _difference(network: nn.Module, route: nn.Module) -> float:
    """Return the greatest difference in probability on an image of noise."""
    image = torch.randn((1, 1, 64, 96), generator=torch.Generator().manual_seed(0))
    return float((route(image).sigmoid() - network(image).sigmoid()).abs().max())
