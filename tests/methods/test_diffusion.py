"""Laws of the denoiser's batches: targets by their formula, each sample's own draw, and held-out draws that stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from mgcc_monai.errors import MGCCError
from mgcc_monai.methods import DiffusionPrepareBatch

NULL = 3


def scheduler(prediction_type: str = "v_prediction", steps: int = 1000) -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=steps,
        beta_schedule="scaled_linear",
        beta_start=0.002,
        beta_end=0.02,
        prediction_type=prediction_type,
    )


def batch(count: int = 6, **others: torch.Tensor) -> dict[str, torch.Tensor]:
    latents = torch.randn(count, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    return {"image": latents, "class_label": torch.arange(count) % NULL, **others}


def prepared(content: dict[str, torch.Tensor], seed: int = 0, prediction: str = "v_prediction", **options: object):
    torch.manual_seed(seed)
    return DiffusionPrepareBatch(scheduler(prediction), **options)(content, "cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_target_by_its_formula(prediction):
    """Velocity is alpha * noise - sigma * image (Salimans and Ho 2022, appendix D); noise is noise."""
    content = batch()
    latents, (target, timesteps), arguments, options = prepared(content, prediction=prediction)
    square = np.cumprod(1 - np.linspace(0.002**0.5, 0.02**0.5, 1000) ** 2)[timesteps.numpy()][:, None, None, None]
    noise = options["noise"].double().numpy()
    wanted = np.sqrt(square) * noise - np.sqrt(1 - square) * content["image"].double().numpy()
    np.testing.assert_allclose(target.numpy(), noise if prediction == "epsilon" else wanted, atol=1e-4)
    assert torch.equal(latents, content["image"]) and arguments == ()
    assert torch.equal(options["timesteps"], timesteps) and timesteps.shape == (6,)


def test_same_torch_seed_same_draw():
    first, second, other = (prepared(batch(), seed) for seed in (4, 4, 5))
    for key in ("noise", "timesteps"):
        assert torch.equal(first[3][key], second[3][key])
        assert not torch.equal(first[3][key], other[3][key])


def test_samples_have_their_own_noise_and_time():
    _, (_, timesteps), _, options = prepared(batch(400), condition_dropout=0.5, null_class=NULL)
    assert len(torch.unique(timesteps)) > 300
    assert len(torch.unique(options["noise"][:, 0, 0, 0])) == 400
    assert abs(float(options["noise"].mean())) < 0.05 and float(options["noise"].std()) == pytest.approx(1, abs=0.05)


def test_every_time_step_is_drawn():
    """Of 10 steps, each comes in a tenth of 4,000 draws, the first and the last too (five standard deviations)."""
    torch.manual_seed(0)
    prepare = DiffusionPrepareBatch(scheduler(steps=10))
    _, (_, timesteps), _, _ = prepare({"image": torch.zeros(4000, 1, 1, 1)}, "cpu")
    counts = np.bincount(timesteps.numpy(), minlength=10)
    assert len(counts) == 10 and np.all(np.abs(counts - 400) < 5 * np.sqrt(4000 * 0.1 * 0.9))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_is_by_sample(share):
    """In 300 batches of 8, the share is met and batches are mixed as independent samples are."""
    dropped = []
    torch.manual_seed(2)
    prepare = DiffusionPrepareBatch(scheduler(), null_class=NULL, condition_dropout=share)
    content = batch(8)
    for _ in range(300):
        condition = prepare(content, "cpu")[3]["condition"]
        kept = condition != NULL
        assert torch.equal(condition[kept], content["class_label"][kept]), "what is not dropped stays as it is"
        dropped.append((~kept).numpy())
    rate = np.mean(dropped)
    assert rate == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 2400))
    counts = np.sum(dropped, axis=1)
    binomial = 8 * share * (1 - share)
    assert np.var(counts) == pytest.approx(binomial, rel=0.4), "dropped as a batch it would be eight times that"
    assert torch.equal(content["class_label"], batch(8)["class_label"]), "the batch itself is not changed"


@pytest.mark.parametrize("share, wanted", [(0.0, [0, 1, 2, 0, 1, 2]), (1.0, [NULL] * 6)])
def test_dropout_at_its_ends(share, wanted):
    _, _, _, options = prepared(batch(), null_class=NULL, condition_dropout=share)
    assert options["condition"].tolist() == wanted


def test_unconditional_network_gets_no_condition():
    content = batch()
    del content["class_label"]
    assert sorted(prepared(content)[3]) == ["noise", "timesteps"]


def test_held_out_batches_bring_their_own():
    """Neither the seed nor the dropout touches them, and nothing is drawn."""
    noise = torch.randn(6, 2, 3, 4, generator=torch.Generator().manual_seed(9))
    content = batch(noise=noise, timesteps=torch.tensor([0, 10, 500, 501, 900, 999]))
    prepare = DiffusionPrepareBatch(scheduler(), null_class=NULL, condition_dropout=1.0)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    _, (target, timesteps), _, options = prepare(content, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(options["noise"], noise)
    assert timesteps.tolist() == content["timesteps"].tolist()
    assert options["condition"].tolist() == content["class_label"].tolist()
    assert torch.equal(target, scheduler().get_velocity(content["image"], noise, timesteps))


@pytest.mark.parametrize("prediction", ["sample", "flow"])
def test_another_prediction_is_refused_in_one_line(prediction):
    part = scheduler()
    part.register_to_config(prediction_type=prediction)
    with pytest.raises(MGCCError, match=f"--diffusion_prediction_type {prediction}: .*epsilon, v_prediction") as caught:
        DiffusionPrepareBatch(part)
    assert "\n" not in caught.value.message
