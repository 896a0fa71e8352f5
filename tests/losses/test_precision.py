"""Losses of networks in half precision: as exact as in float32, whatever the network's outputs are."""

from __future__ import annotations

import pytest
import torch

from mgcc_monai.losses import AutoencoderLoss, CrossConsistencyLoss, SupervisedLoss


def autoencoder(image: torch.Tensor) -> torch.Tensor:
    loss = AutoencoderLoss()
    loss.detail_active = True
    return loss([0.9 * image, image, image], image.float())


def segmenter(logits: torch.Tensor) -> torch.Tensor:
    label = (torch.arange(32 * 32).reshape(1, 1, 32, 32) % 5 > 2).float()
    return CrossConsistencyLoss(SupervisedLoss(), 3.0)([logits, 0.9 * logits], label)


@pytest.mark.parametrize("loss", [autoencoder, segmenter])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_under_autocast_is_that_of_the_same_values_in_float32(loss, dtype) -> None:
    values = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    if loss is autoencoder:
        values = values.clamp(-1, 1)
    wanted = loss(values.float() if loss is segmenter else values)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(values)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=5e-3 if loss is segmenter else 1e-6, atol=0)


def test_double_precision_is_kept() -> None:
    logits = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert CrossConsistencyLoss(SupervisedLoss(), 1.0)([logits, logits], torch.ones(1, 1, 8, 8)).dtype == torch.float64
