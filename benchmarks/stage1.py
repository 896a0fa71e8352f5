"""Stage 1 of the preset small: a step of the autoencoder and of the denoiser, and generated images."""

from __future__ import annotations

import diffusers
import torch
from monai.losses import SSIMLoss
from torch import nn

from benchmarks.measure import Row, rows
from benchmarks.plain import plain
from mgcc_monai.generation import LatentDiffusionPipeline
from mgcc_monai.losses import AutoencoderLoss, DiffusionLoss
from mgcc_monai.networks import Autoencoder, Denoiser


class _PublishedSSIM(AutoencoderLoss):
    """The loss with MONAI's SSIM."""

    def forward(self, output, image):
        reconstruction = output[0]
        rest = nn.functional.l1_loss(reconstruction, image)
        return rest + SSIMLoss(spatial_dims=2, data_range=2.0)(reconstruction, image) + 1e-6 * output[1].square().mean()


def _trainer(network, loss, inputs, target, amp=False):
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast(target.device.type, torch.bfloat16, enabled=amp):
            output = network(*inputs)
        output = [part.float() for part in output] if isinstance(output, list) else output.float()
        value = loss(output, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def _vae() -> diffusers.AutoencoderKL:
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(
        4, 4, **levels, block_out_channels=(32, 64), latent_channels=8, norm_num_groups=8, mid_block_add_attention=False
    )
    vae.register_to_config(latents_mean=[0.0] * 8, latents_std=[1.0] * 8)
    return vae


def _unet() -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel(
        32, 8, 8, layers_per_block=1, block_out_channels=(64, 128, 192), num_class_embeds=3,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def autoencoder_step(change=lambda network: network, loss=None, device: str = "cpu", amp: bool = False):
    """Return a call that trains the autoencoder for one step."""
    torch.manual_seed(0)
    network = change(Autoencoder(_vae()).to(device).train())
    image = torch.rand(8, 1, 64, 64, device=device) * 2 - 1
    return _trainer(network, loss or AutoencoderLoss(), [image], image, amp)


def denoiser_step(change=lambda network: network, device: str = "cpu", amp: bool = False):
    """Return a call that trains the denoiser for one step."""
    torch.manual_seed(0)
    network = change(Denoiser(_unet()).to(device).train())
    latents = torch.randn(16, 8, 32, 32, device=device)
    steps, classes = torch.randint(0, 1000, (16,), device=device), torch.randint(0, 3, (16,), device=device)
    loss = DiffusionLoss(diffusers.DDPMScheduler(prediction_type="v_prediction"))
    return _trainer(network, lambda out, goal: loss(out, [goal, steps]), [latents, steps, classes], latents, amp)


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time the steps and the sampling."""
    found = rows(
        "autoencoder step",
        {
            "plain": autoencoder_step(plain, _PublishedSSIM(), device),
            "fused upsampling, SSIM by matrix products": autoencoder_step(device=device),
            "+ bfloat16": autoencoder_step(device=device, amp=True),
        },
        repeats,
        rate,
    )
    found += rows(
        "denoiser step",
        {
            "plain": denoiser_step(plain, device),
            "fused upsampling": denoiser_step(device=device),
            "+ bfloat16": denoiser_step(device=device, amp=True),
        },
        repeats,
        rate,
    )
    vae, unet = _vae(), _unet()
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    solver = diffusers.DPMSolverMultistepScheduler.from_config(scheduler.config)
    pipe = LatentDiffusionPipeline(vae, unet, solver, classes=["a", "b"], image_size=[128, 128]).to(device)
    pipe.set_progress_bar_config(disable=True)
    first = LatentDiffusionPipeline(plain(vae), plain(unet), solver, classes=["a", "b"], image_size=[128, 128])
    for name in ("vae", "unet"):
        setattr(first, name, plain(getattr(pipe, name)))
    first = first.to(device)
    first.set_progress_bar_config(disable=True)
    draws = list(range(8))
    return found + rows(
        "generating 8 images of 128 x 128",
        {
            "plain, 25 steps": lambda: first(indices=draws, seed=0, num_inference_steps=25),
            "fused upsampling, 25 steps": lambda: pipe(indices=draws, seed=0, num_inference_steps=25),
            "fused upsampling, 8 steps": lambda: pipe(indices=draws, seed=0, num_inference_steps=8),
        },
        max(1, repeats // 3),
    )
