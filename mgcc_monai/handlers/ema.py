"""Averaged weights: what validation, previews and the saved model use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from ignite.engine import Engine, Events
from torch import nn

__all__ = ["EMA"]


class EMA:
    """Keep an exponential moving average of a network's weights and validate with it.

    In step ``t``, counted from 1, the average moves by one minus the smaller of ``decay`` and ``t / (9 + t)``; the
    first step copies. The statistics of batch normalisations are averaged with the weights.

    Args:
        network: the network in training.
        decay: the decay once warm; 0 keeps the weights themselves.
        evaluator: the validation engine, which sees the averaged weights.

    Source:
        Karras et al. 2024 (arXiv 2312.02696), section 3 (why generators are judged by averaged weights).
    """

    def __init__(self, network: nn.Module, decay: float = 0.999, evaluator: Engine | None = None) -> None:
        self.network = network
        self.evaluator = evaluator
        self.model = EMAModel(network.parameters(), decay=decay, foreach=True)
        self.buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.shadows = [buffer.detach().clone() for buffer in self.buffers]

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handlers that validate, draw or save."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.STARTED, lambda _: self._swap_in())
            self.evaluator.add_event_handler(Events.COMPLETED, lambda _: self.restore())
            self.evaluator.add_event_handler(Events.EXCEPTION_RAISED, self._give_up)

    def __call__(self, engine: Engine) -> None:
        """Move the average towards the weights."""
        self.model.step(self.network.parameters())
        if self.shadows:
            torch._foreach_lerp_(self.shadows, self.buffers, 1 - self.model.cur_decay_value)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the network with the averaged weights in it, for the time of a ``with`` block."""
        self._swap_in()
        try:
            yield self.network
        finally:
            self.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of steps."""
        state = self.model.state_dict()
        kept = {name: state[name] for name in ("shadow_params", "optimization_step")}
        return kept | ({"buffers": self.shadows} if self.shadows else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: when the weights are of another network.
        """
        own = [parameter.shape for parameter in self.network.parameters()]
        if [weight.shape for weight in state["shadow_params"]] != own:
            raise ValueError("the averaged weights are of another network")
        weights = {name: value for name, value in state.items() if name != "buffers"}
        self.model.load_state_dict({**self.model.state_dict(), **weights})
        self.model.to(device=next(self.network.parameters()).device)
        for shadow, saved in zip(self.shadows, state.get("buffers", []), strict=True):
            shadow.copy_(saved)

    def _swap_in(self) -> None:
        self.model.store(self.network.parameters())
        self.model.copy_to(self.network.parameters())
        self._swap_buffers()

    def restore(self) -> None:
        """Put the weights in training back, where averaged ones stand in the network."""
        if self.model.temp_stored_params is not None:  # ignite tells of an exception more than once
            self.model.restore(self.network.parameters())
            self._swap_buffers()

    @torch.no_grad()
    def _swap_buffers(self) -> None:
        for shadow, buffer in zip(self.shadows, self.buffers):
            kept = shadow.clone()
            shadow.copy_(buffer)
            buffer.copy_(kept)

    def _give_up(self, engine: Engine, error: BaseException) -> None:
        self.restore()
        raise error
