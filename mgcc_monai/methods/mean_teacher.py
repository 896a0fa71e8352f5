"""Mean Teacher: consistency to the predictions of an averaged network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch.optim.swa_utils import AveragedModel

__all__ = ["MeanTeacherInferer"]


class MeanTeacherInferer(SimpleInferer):
    """Give the network's logits and, behind them, those of a teacher: the moving average of the network's weights.

    The teacher is moved before each forward pass, so once per optimizer step: after n steps
    ``teacher = a * teacher + (1 - a) * network`` with ``a = min(1 - 1 / (n + 1), decay)``; it begins as a copy. It
    sees the images under Gaussian noise of its own, clipped at two standard deviations, and has no gradient. With
    ``supervised_outputs`` 1 the loss supervises the network alone.

    Args:
        network: the network that is trained.
        decay: of the average, once it is warm.
        noise: standard deviation of the noise, in units of the normalised images.

    Source:
        Tarvainen and Valpola 2017 (arXiv 1703.01780), equation 1; warm-up and noise as in their code and SSL4MIS.
    """

    def __init__(self, network: torch.nn.Module, decay: float = 0.99, noise: float = 0.1) -> None:
        super().__init__()
        self.decay, self.noise = float(decay), float(noise)
        self.teacher = AveragedModel(network, avg_fn=self._average)

    def _average(self, teacher: torch.Tensor, network: torch.Tensor, steps: Any) -> torch.Tensor:
        return network.lerp(teacher, min(1 - 1 / (int(steps) + 1), self.decay))

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """Run network and teacher on images BCHW; return the logits of each output, the teacher's last."""
        outputs = network(inputs, *args, **kwargs)
        with torch.no_grad():
            self.teacher.update_parameters(getattr(network, "module", network))
            noise = (torch.randn_like(inputs) * self.noise).clamp(-2 * self.noise, 2 * self.noise)
            taught = self.teacher.train()(inputs + noise, *args, **kwargs)
        return [*_listed(outputs), _listed(taught)[0]]

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's weights and its number of steps, for a checkpoint."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.teacher.load_state_dict(state)


def _listed(outputs: Any) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
