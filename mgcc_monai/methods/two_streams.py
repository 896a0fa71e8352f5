"""From a batch of the loaders to what the network and the loss take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.utils import convert_to_tensor

__all__ = ["TwoStreamPrepareBatch"]


class TwoStreamPrepareBatch(PrepareBatch):
    """Put the labelled and the unlabelled images of an iteration into one batch, labelled first.

    For :class:`monai.engines.SupervisedTrainer`. The loss knows the labelled images by the number of labels.

    Args:
        image_key: images L1HW that have a label.
        label_key: their labels L1HW.
        unlabeled_key: images U1HW without label; may be missing from a batch.
    """

    def __init__(
        self, image_key: str = "image", label_key: str = "label", unlabeled_key: str = "unlabeled_image"
    ) -> None:
        self.image_key, self.label_key, self.unlabeled_key = image_key, label_key, unlabeled_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (L + U)1HW and labels L1HW as plain tensors on ``device``."""

        def to_device(key: str) -> torch.Tensor:
            plain = convert_to_tensor(batchdata[key], track_meta=False)
            return plain.to(device=device, non_blocking=non_blocking, **kwargs)

        images = to_device(self.image_key)
        if self.unlabeled_key in batchdata:
            images = torch.cat((images, to_device(self.unlabeled_key)))
        return images, to_device(self.label_key)
