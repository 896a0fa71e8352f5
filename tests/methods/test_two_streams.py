"""What the trainer gets from a batch of two streams."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from mgcc_monai.methods import TwoStreamPrepareBatch


def batch(labelled: int = 1, unlabelled: int = 7) -> dict[str, torch.Tensor]:
    def numbered(count: int, first: int) -> torch.Tensor:
        return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 6).contiguous()

    return {
        "image": numbered(labelled, 0),
        "label": numbered(labelled, 100),
        "unlabeled_image": numbered(unlabelled, 50),
    }


@pytest.mark.parametrize("labelled, unlabelled", [(4, 4), (1, 7), (7, 1)])
def test_labelled_images_come_first_and_labels_stay_few(labelled, unlabelled):
    images, labels = TwoStreamPrepareBatch()(batch(labelled, unlabelled))
    assert images.shape == (labelled + unlabelled, 1, 4, 6)
    assert images[:, 0, 0, 0].tolist() == [*range(labelled), *range(50, 50 + unlabelled)]
    assert labels[:, 0, 0, 0].tolist() == list(range(100, 100 + labelled))


def test_without_unlabelled_images():
    data = batch()
    del data["unlabeled_image"]
    images, labels = TwoStreamPrepareBatch()(data)
    assert torch.equal(images, data["image"]) and torch.equal(labels, data["label"])


@pytest.mark.parametrize("missing", ["image", "label"])
def test_a_batch_without_image_or_label_is_no_batch(missing):
    data = batch()
    del data[missing]
    with pytest.raises(KeyError, match=missing):
        TwoStreamPrepareBatch()(data)


def test_plain_tensors_on_the_device_asked_for():
    data = {name: MetaTensor(tensor) for name, tensor in batch().items()}
    images, labels = TwoStreamPrepareBatch()(data, device="meta", non_blocking=True)
    assert type(images) is torch.Tensor and type(labels) is torch.Tensor
    assert images.device.type == labels.device.type == "meta"


def test_other_names_and_arguments_of_to():
    data = batch()
    renamed = {"x": data["image"], "y": data["label"], "u": data["unlabeled_image"]}
    prepare = TwoStreamPrepareBatch(image_key="x", label_key="y", unlabeled_key="u")
    images, labels = prepare(renamed, device="cpu", dtype=torch.float64)
    assert images.dtype == labels.dtype == torch.float64
    assert torch.equal(images.float(), TwoStreamPrepareBatch()(data)[0])
