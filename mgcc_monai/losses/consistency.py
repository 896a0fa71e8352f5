"""The training loss of MGCC: supervision of every decoder, consistency between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mgcc_monai.losses.precision import in_float32

__all__ = ["CrossConsistencyLoss", "consistency"]

_DETACH = ("none", "main", "auxiliary")


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Turn logits BCHW into probabilities: sigmoid for one channel, softmax over the channels for more."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


def consistency(main: torch.Tensor, auxiliary: Sequence[torch.Tensor], detach: str = "none") -> torch.Tensor:
    """Mean squared difference between the probabilities of the main and the auxiliary decoders, averaged over these.

    Args:
        main: logits of the main decoder, BCHW.
        auxiliary: logits of the auxiliary decoders, each BCHW.
        detach: the side that receives no gradient: "none" (as released), "main" (the auxiliary decoders learn from
            the main one, as in cross-consistency training) or "auxiliary".

    Returns:
        a scalar tensor; 0 without auxiliary decoders or without images.

    Raises:
        ValueError: when ``detach`` is another word.

    Source:
        Tang et al. 2023 (arXiv 2305.09447), unsupervised loss; Ouali et al. 2020 (arXiv 2003.09005), equation 2.
    """
    if detach not in _DETACH:
        raise ValueError(f"detach must be one of {', '.join(_DETACH)}, got {detach!r}.")
    if not auxiliary or main.shape[0] == 0:
        return main.new_zeros(())
    target = probabilities(main.detach() if detach == "main" else main)
    parts = [
        torch.nn.functional.mse_loss(probabilities(logits.detach() if detach == "auxiliary" else logits), target)
        for logits in auxiliary
    ]
    return torch.stack(parts).mean()


class CrossConsistencyLoss(nn.Module):
    """Supervised loss, averaged over outputs, plus weighted consistency between them on the unlabelled images.

    A batch holds the labelled images first; the images beyond the labels are the unlabelled ones.

    Args:
        supervised: a loss of (logits, label), such as :class:`monai.losses.DiceCELoss`.
        consistency_weight: weight of the consistency; a handler moves it while training.
        detach: the side of the consistency that receives no gradient, see :func:`consistency`.
        supervised_outputs: the first so many outputs are supervised; None supervises all, as MGCC does.
        auxiliary: auxiliary decoders of a network that runs only some of them in a step. Those that ran then stand for
            all: of ``k`` out of ``n`` each has the supervised weight ``n / k / (n + 1)``. None where all run.

    Source:
        Tang et al. 2023 (arXiv 2305.09447), total loss.
    """

    def __init__(
        self,
        supervised: nn.Module,
        consistency_weight: float = 0.0,
        detach: str = "none",
        supervised_outputs: int | None = None,
        auxiliary: int | None = None,
    ) -> None:
        super().__init__()
        if detach not in _DETACH:
            raise ValueError(f"detach must be one of {', '.join(_DETACH)}, got {detach!r}.")
        self.supervised = supervised
        self.consistency_weight = float(consistency_weight)
        self.detach = detach
        self.supervised_outputs = supervised_outputs
        self.auxiliary = auxiliary
        self.parts: dict[str, float] = {}

    def set_consistency_weight(self, weight: float) -> None:
        """Set the weight of the consistency from now on."""
        self.consistency_weight = float(weight)

    @in_float32
    def forward(self, logits: Sequence[torch.Tensor] | torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss; its parts stand in ``parts`` afterwards.

        Args:
            logits: those of the main output, then of the others, each BCHW; or one tensor.
            label: labels of the first images of the batch, L1HW with L <= B.

        Returns:
            a scalar tensor.

        Raises:
            ValueError: when there are more labels than images.
        """
        outputs = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        labelled = label.shape[0]
        if labelled > outputs[0].shape[0]:
            raise ValueError(f"{labelled} labels came with {outputs[0].shape[0]} images; every label needs its image.")
        main, *others = [self.supervised(output[:labelled], label) for output in outputs[: self.supervised_outputs]]
        supervised = torch.stack([main, *others]).mean()
        if self.auxiliary is not None and 0 < len(others) < self.auxiliary:
            supervised = (main + self.auxiliary * torch.stack(others).mean()) / (self.auxiliary + 1)
        loss = supervised
        self.parts = {"supervised": float(supervised.detach())}
        if labelled < outputs[0].shape[0]:
            unsupervised = consistency(
                outputs[0][labelled:], [output[labelled:] for output in outputs[1:]], self.detach
            )
            loss = loss + self.consistency_weight * unsupervised
            self.parts["consistency"] = float(unsupervised.detach())
            self.parts["weight"] = self.consistency_weight
        return loss
