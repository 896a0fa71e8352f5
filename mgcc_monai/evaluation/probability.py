"""From logits to the probability of lesion."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["LesionProbabilityd"]


class LesionProbabilityd(MapTransform):
    """Turn logits CHW into the probability of lesion, 1HW: sigmoid of one channel, or 1 - softmax of the background.

    Args:
        keys: of the logits.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with probabilities in place of logits; meta data stay."""
        item = dict(data)
        for key in self.key_iterator(item):
            logits = item[key]
            item[key] = torch.sigmoid(logits) if logits.shape[0] == 1 else 1 - torch.softmax(logits, dim=0)[:1]
        return item
