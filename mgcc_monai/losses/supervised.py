"""The supervised part of the training loss of MGCC."""

from __future__ import annotations

from monai.losses import DiceCELoss

__all__ = ["SupervisedLoss"]


class SupervisedLoss(DiceCELoss):
    """Weighted sum of cross entropy and Dice loss over a batch: sigmoid for one channel of logits, softmax for more.

    Args:
        out_channels: channels of the logits.
        lambda_ce: weight of the cross entropy.
        lambda_dice: weight of the Dice loss.

    Source:
        Tang et al. 2023 (arXiv 2305.09447): 0.5 BCE + Dice.
    """

    def __init__(self, out_channels: int = 1, lambda_ce: float = 0.5, lambda_dice: float = 1.0) -> None:
        several = out_channels > 1
        super().__init__(
            sigmoid=not several,
            softmax=several,
            to_onehot_y=several,
            lambda_ce=lambda_ce,
            lambda_dice=lambda_dice,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
        )
