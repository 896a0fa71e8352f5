"""Weights for an engine's network."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from mgcc_monai.weights import load_state_dict

__all__ = ["LoadWeights"]


class LoadWeights:
    """Fill a network when an engine starts; as MONAI's ``CheckpointLoader``, and for safetensors too.

    Args:
        path: a .pt file, read with ``weights_only``; or .safetensors with its sha256 in the ``weights.json`` beside it.
        network: the network; half precision becomes its own.
        device: device that the file is read to.
    """

    def __init__(self, path: str, network: torch.nn.Module, device: Any = "cpu") -> None:
        self.path, self.network, self.device = path, network, device

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator, before the handlers that look at the network."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Fill the network."""
        self.network.load_state_dict(load_state_dict(self.path, self.device))
