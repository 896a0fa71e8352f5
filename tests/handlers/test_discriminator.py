"""Laws of the adversarial half: when it starts, that it learns, what it must not touch, and that it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import nn

from mgcc_monai.data import ResumableSampler, SeededCacheDataset
from mgcc_monai.handlers import DetailPhase, DiscriminatorStep, IterationSeed, ResumableCheckpoint
from mgcc_monai.losses import AutoencoderLoss
from mgcc_monai.losses.autoencoder import discriminator_logits

SIDE = 16


class Net(nn.Module):
    """Stands in for the autoencoder: a picture, and latents of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 1, 3, padding=1)
        self.latent = nn.Conv2d(1, 4, 4, stride=4)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        mean, logvar = self.latent(image).chunk(2, dim=1)
        return [self.body(image) + 0.1 * torch.randn(image.shape), mean, logvar]


def items(count: int = 6) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, SIDE, SIDE, generator=generator) * 2 - 1 for _ in range(count)]
    return [{"image": image, "label": image} for image in images]


def patch_discriminator() -> PatchDiscriminator:
    torch.manual_seed(11)
    return PatchDiscriminator(spatial_dims=2, channels=4, in_channels=1, num_layers_d=1, norm="INSTANCE")


class Parts:
    """All that an adversarial training needs, as the bundle's config builds it."""

    def __init__(self, start: int, weight: float = 0.5, rate: float = 0.01, rests: bool = False) -> None:
        torch.manual_seed(10)
        self.network, self.discriminator = Net(), patch_discriminator()
        adversarial = PatchAdversarialLoss(criterion="least_squares")
        self.loss = AutoencoderLoss(
            spectral_weight=0, adversarial_weight=weight, discriminator=self.discriminator, adversarial=adversarial
        )
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr=rate)
        self.phase = DetailPhase(self.loss, start, self.network.latent.parameters() if rests else ())
        self.step = DiscriminatorStep(self.discriminator, self.discriminator_optimizer, self.loss)

    def objects(self) -> dict[str, Any]:
        names = ("network", "optimizer", "discriminator", "discriminator_optimizer")
        return {name: getattr(self, name) for name in names}

    def train(self, epochs: int, *handlers: Any) -> None:
        sampler = ResumableSampler(6, 2, 3, seed=4)
        SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(SeededCacheDataset(items()), batch_size=2, sampler=sampler),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=self.loss,
            inferer=SimpleInferer(),
            train_handlers=[IterationSeed(8, sampler), self.phase, self.step, *handlers],
        ).run()


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in module.parameters()])


class Watch:
    """Notes the discriminator's weights and the loss's switch at the end of every backward pass."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.weights = [flat(parts.discriminator)]
        self.active: list[bool] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.weights.append(flat(self.parts.discriminator))
        self.active.append("adversarial" in self.parts.loss.parts)
        assert ("discriminator" in self.parts.loss.parts) == self.active[-1]


@pytest.mark.parametrize("start", [1, 3, 6, 7])
def test_it_starts_at_its_iteration(start):
    """Of six iterations, those from ``start`` on have the adversarial part and move the discriminator."""
    parts = Parts(start)
    watch = Watch(parts)
    parts.train(2, watch)
    assert watch.active == [iteration >= start for iteration in range(1, 7)]
    moved = [not torch.equal(a, b) for a, b in zip(watch.weights, watch.weights[1:])]
    assert moved == watch.active


def test_before_its_start_the_training_is_one_without_it():
    with_it, without = Parts(7), Parts(7, weight=0.0)
    with_it.train(2)
    without.train(2)
    assert torch.equal(flat(with_it.network), flat(without.network))
    early = Parts(1)
    early.train(2)
    assert not torch.equal(flat(early.network), flat(without.network))


class Gradients:
    """Keeps the generator's gradients before and after the discriminator's step."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.found = network, []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.found.append(torch.cat([weight.grad.flatten().clone() for weight in self.network.parameters()]))


def test_gradients_of_the_generator_are_left_alone():
    parts = Parts(1)
    before, after = Gradients(parts.network), Gradients(parts.network)
    order, parts.step = parts.step, before
    parts.train(2, order, after)
    assert len(before.found) == 6 and all(torch.equal(a, b) for a, b in zip(before.found, after.found))
    assert all(gradient.any() for gradient in before.found)


def test_step_is_that_of_least_squares_on_the_verdicts():
    """One step of plain SGD against the formula: 1/2 [(D(real) - 1)^2 + D(made)^2] over the patches."""
    real, made = (torch.stack([item["image"] for item in items()[k : k + 3]]) for k in (0, 3))
    parts, twin = Parts(1), patch_discriminator()
    activation = parts.loss.adversarial.activation or nn.Identity()
    error = 0.5 * ((activation(twin(real)[-1]) - 1).square().mean() + activation(twin(made)[-1]).square().mean())
    gradients = torch.autograd.grad(error, list(twin.parameters()))
    wanted = flat(twin) - 0.1 * torch.cat([gradient.flatten() for gradient in gradients])
    optimizer = torch.optim.SGD(parts.discriminator.parameters(), lr=0.1)
    for weight in parts.discriminator.parameters():
        weight.grad = torch.full_like(weight, 100.0)  # as the generator's loss leaves something in it
    parts.loss.detail_active = True
    engine = Engine(lambda engine, batch: None)
    engine.state.output = {"label": real, "pred": [made.requires_grad_(), None, None]}
    DiscriminatorStep(parts.discriminator, optimizer, parts.loss)(engine)
    assert torch.allclose(flat(parts.discriminator), wanted, atol=1e-6)
    assert parts.loss.parts["discriminator"] == pytest.approx(float(error), rel=1e-5)
    assert made.grad is None


def test_it_learns_to_tell_real_from_made():
    """Rough images against smooth ones: after forty steps, its verdicts lie on either side of a half."""
    parts = Parts(1)
    parts.loss.detail_active = True
    real = torch.stack([item["image"] for item in items()])
    made = nn.functional.avg_pool2d(real, 5, 1, 2)
    engine = Engine(lambda engine, batch: None)
    engine.state.output = {"label": real, "pred": [made, None, None]}
    with torch.no_grad():
        first = float(
            (
                discriminator_logits(parts.discriminator, real).mean()
                - discriminator_logits(parts.discriminator, made).mean()
            ).abs()
        )
    for _ in range(40):
        parts.step(engine)
    with torch.no_grad():
        on_real, on_made = (float(discriminator_logits(parts.discriminator, images).mean()) for images in (real, made))
    assert first < 0.3
    assert on_real > 0.75 and on_made < 0.25
    assert parts.loss.parts["discriminator"] < 0.1


def run(folder: Path, epochs: int, resume: bool = False) -> Parts:
    parts = Parts(start=5)  # it starts in the second epoch of three iterations
    if resume:
        for module in (parts.network, parts.discriminator):  # a process that starts anew
            nn.init.normal_(next(iter(module.parameters())))
    parts.train(epochs, ResumableCheckpoint(str(folder), parts.objects(), resume=resume))
    return parts


@pytest.mark.parametrize("stopped", [1, 2])
def test_resumed_training_is_the_one_that_never_stopped(stopped, tmp_path):
    """Stopped before the adversarial part had started, and after."""
    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", stopped)
    resumed = run(tmp_path / "parts", 4, resume=True)
    assert torch.equal(flat(resumed.network), flat(whole.network))
    assert torch.equal(flat(resumed.discriminator), flat(whole.discriminator))
    assert not torch.equal(flat(whole.discriminator), flat(patch_discriminator()))
    for name in ("optimizer", "discriminator_optimizer"):
        moments = [
            [entry["exp_avg"] for entry in getattr(parts, name).state_dict()["state"].values()]
            for parts in (whole, resumed)
        ]
        assert moments[0] and all(torch.equal(a, b) for a, b in zip(*moments))


class Latents:
    """Notes the weights that are to rest, and the others, after every iteration."""

    def __init__(self, network: Net) -> None:
        self.network, self.frozen, self.other = network, [flat(network.latent)], [flat(network.body)]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.frozen.append(flat(self.network.latent))
        self.other.append(flat(self.network.body))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_weights_rest_from_its_start_on(start):
    """To the bit, though the optimizer has momentum by then; the others go on."""
    parts = Parts(start, rests=True)
    watch = Latents(parts.network)
    parts.train(2, watch)
    moved = [not torch.equal(a, b) for a, b in zip(watch.frozen, watch.frozen[1:])]
    assert moved == [iteration < start for iteration in range(1, 7)]
    assert all(not torch.equal(a, b) for a, b in zip(watch.other, watch.other[1:]))
