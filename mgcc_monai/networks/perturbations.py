"""Perturbations of feature maps, which the auxiliary decoders of MGCC have to withstand.

Each is a module with ``draw(x)``, which takes all its randomness from torch on the device of ``x``, and
``forward(x, draw=None)``, which does what a draw says and nothing random. A draw is made per sample unless the module
was built with ``shared=True``, where one draw serves the whole batch, as in the authors' released code. A
perturbation always acts: the network calls it in training alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mgcc_monai.parse import parse_bool

__all__ = ["Dropout", "FeatureDropout", "FeatureNoise", "Perturbation"]


class Perturbation(nn.Module):
    """Base of the perturbations: a random draw, and what is done with it.

    Args:
        shared: one draw for all samples of a batch, instead of one per sample.
    """

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.shared = parse_bool(shared, "perturbation_shared")

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return the random part for features ``x`` (BCHW); it broadcasts against ``x``."""
        raise TypeError(f"{type(self).__name__} must define draw(x) and apply_draw(x, draw).")

    def apply_draw(self, x: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Return ``x`` (BCHW) perturbed as ``draw`` says."""
        raise TypeError(f"{type(self).__name__} must define draw(x) and apply_draw(x, draw).")

    def forward(self, x: torch.Tensor, draw: torch.Tensor | None = None) -> torch.Tensor:
        """Perturb features.

        Args:
            x: features, BCHW.
            draw: what ``draw(x)`` gave before, to repeat it exactly; None draws anew.

        Returns:
            features of the same shape.
        """
        return self.apply_draw(x, self.draw(x) if draw is None else draw)

    def _uniform(self, x: torch.Tensor, shape: Sequence[int], low: float, high: float) -> torch.Tensor:
        batch = 1 if self.shared else x.shape[0]
        return torch.empty((batch, *shape), device=x.device, dtype=x.dtype).uniform_(low, high)


class FeatureDropout(Perturbation):
    """Erase the positions where a sample responds most: those whose channel mean reaches a fraction of its maximum.

    Args:
        low: lower end of the uniform draw of that fraction.
        high: upper end.
        shared: one fraction for the whole batch.

    Source:
        Ouali et al. 2020, "Semi-Supervised Semantic Segmentation with Cross-Consistency Training" (arXiv 2003.09005),
        section 3.2, F-Drop with its range 0.7 to 0.9; auxiliary decoder 1 of Tang et al. 2023.
    """

    def __init__(self, low: float = 0.7, high: float = 0.9, shared: bool = False) -> None:
        super().__init__(shared)
        if not 0 < low <= high:
            raise ValueError(f"FeatureDropout needs 0 < low <= high, got low={low} and high={high}.")
        self.low, self.high = low, high

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return the fractions of the maximum, B111 (1111 if shared)."""
        return self._uniform(x, (1, 1, 1), self.low, self.high)

    def apply_draw(self, x: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Set to zero, in all channels of ``x``, the positions at or above ``draw`` times the maximal channel mean."""
        attention = x.mean(dim=1, keepdim=True)
        return x * (attention < attention.amax(dim=(2, 3), keepdim=True) * draw).to(x.dtype)


class FeatureNoise(Perturbation):
    """Scale each feature by one plus uniform noise.

    Args:
        amplitude: the noise is uniform in [-amplitude, amplitude].
        shared: one noise field for the whole batch.

    Source:
        Ouali et al. 2020 (arXiv 2003.09005), section 3.2, F-Noise with its amplitude 0.3; auxiliary decoder 3 of
        Tang et al. 2023.
    """

    def __init__(self, amplitude: float = 0.3, shared: bool = False) -> None:
        super().__init__(shared)
        if amplitude < 0:
            raise ValueError(f"FeatureNoise needs an amplitude of at least 0, got {amplitude}.")
        self.amplitude = amplitude

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return the noise, BCHW (1CHW if shared)."""
        return self._uniform(x, x.shape[1:], -self.amplitude, self.amplitude)

    def apply_draw(self, x: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Return ``x + x * draw``."""
        return x + x * draw


class Dropout(Perturbation):
    """Set single features to zero and scale the others up by ``1 / (1 - p)``.

    Args:
        p: probability of a feature to be dropped.
        shared: one mask for the whole batch.

    Source:
        Srivastava et al. 2014; auxiliary decoder 2 of Tang et al. 2023 with p = 0.3.
    """

    def __init__(self, p: float = 0.3, shared: bool = False) -> None:
        super().__init__(shared)
        if not 0 <= p < 1:
            raise ValueError(f"Dropout needs 0 <= p < 1, got {p}.")
        self.p = p

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mask of kept features, 0 or 1, BCHW (1CHW if shared)."""
        return (self._uniform(x, x.shape[1:], 0.0, 1.0) >= self.p).to(x.dtype)

    def apply_draw(self, x: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Return ``x * draw / (1 - p)``."""
        return x * (draw / (1 - self.p))
