"""Laws of the denoiser's adapter: MONAI's inferer drives a network of diffusers, and the class counts."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from monai.inferers import DiffusionInferer

from mgcc_monai.networks import Denoiser

NULL = 2


def tiny(classes: int | None = NULL + 1) -> Denoiser:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=[8, 12],
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
        norm_num_groups=4,
        num_class_embeds=classes,
    )
    return Denoiser(unet).eval()


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(num_train_timesteps=100, beta_schedule="scaled_linear", beta_start=0.002, beta_end=0.02)


def draw(seed: int, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("classes", [None, NULL + 1])
def test_inferer_of_monai_noises_and_predicts(classes):
    """x_t = sqrt(a) x_0 + sqrt(1 - a) noise, with a the product of 1 - beta, and the network sees that."""
    network, latents, noise = tiny(classes), draw(1), draw(2)
    timesteps = torch.tensor([0, 7, 50, 99])
    condition = None if classes is None else torch.tensor([0, 1, NULL, 0])
    found = DiffusionInferer(scheduler())(latents, network, noise, timesteps, condition)
    betas = torch.linspace(0.002**0.5, 0.02**0.5, 100).double().square()
    kept = torch.cumprod(1 - betas, 0)[timesteps][:, None, None, None]
    noisy = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).float()
    wanted = network.unet(noisy, timesteps, class_labels=condition).sample
    assert found.shape == latents.shape
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(found, network(latents, timesteps, condition), atol=1e-3), "the noise counts"


def test_class_and_null_class_differ():
    network, noisy, timesteps = tiny(), draw(3, 1), torch.tensor([30])
    benign, malignant, null = (network(noisy, timesteps, torch.tensor([number])) for number in (0, 1, NULL))
    for first, second in ((benign, malignant), (benign, null), (malignant, null)):
        assert float((first - second).abs().max()) > 1e-4


def test_each_sample_has_its_own_class_and_time():
    network, noisy = tiny(), draw(4)
    timesteps, classes = torch.tensor([1, 90, 1, 90]), torch.tensor([0, 0, NULL, 1])
    together = network(noisy, timesteps, classes)
    for index in range(4):
        alone = network(noisy[index : index + 1], timesteps[index : index + 1], classes[index : index + 1])
        assert torch.allclose(together[index], alone[0], atol=1e-5)
    assert not torch.allclose(network(noisy, timesteps.flip(0), classes), together, atol=1e-4)


def test_class_beyond_the_null_class_is_an_error():
    with pytest.raises(IndexError):
        tiny()(draw(5, 1), torch.tensor([3]), torch.tensor([NULL + 1]))


def test_only_the_classes_that_occur_are_learned_from():
    network = tiny().train()
    network(draw(6, 2), torch.tensor([5, 60]), torch.tensor([1, NULL])).square().mean().backward()
    moved = network.unet.class_embedding.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, True, True]
