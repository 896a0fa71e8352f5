"""Mean Teacher: its formula on a fixed case, its noise, its gradient, and a resumed training to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mgcc_monai.errors import MGCCError
from mgcc_monai.losses import CrossConsistencyLoss
from mgcc_monai.methods import MeanTeacherInferer
from mgcc_monai.weights import load_checkpoint


def scale(value: float) -> nn.Module:
    """A network of one weight, which multiplies the image by it."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


@pytest.mark.parametrize("decay", [0.6, 0.99])
def test_the_teacher_is_the_average_of_the_formula(decay: float):
    """a = min(1 - 1 / (n + 1), decay): by hand 1/2, then 3/5 or 2/3, then 3/5 or 3/4, for the weights 1, 3, 5, 9."""
    network = scale(1.0)
    inferer = MeanTeacherInferer(network, decay, noise=0.0)
    image, teacher = torch.ones(1, 1, 2, 2), 1.0
    for steps, weight in enumerate((1.0, 3.0, 5.0, 9.0)):
        nn.init.constant_(network.weight, weight)
        if steps:
            share = min(steps / (steps + 1), decay)
            teacher = share * teacher + (1 - share) * weight
        student, taught = inferer(image, network)
        assert float(student.mean()) == weight and float(taught.mean()) == pytest.approx(teacher, rel=1e-6)
    assert teacher == pytest.approx({0.6: 5.52, 0.99: 4.5}[decay])


def test_the_teacher_sees_noise_of_its_own_and_has_no_gradient():
    network = scale(2.0)
    inferer = MeanTeacherInferer(network, noise=0.1)
    image = torch.zeros(1, 1, 200, 200)
    torch.manual_seed(0)
    student, taught = inferer(image, network)
    seen = taught / 2
    assert not student.any() and not taught.requires_grad and student.requires_grad
    assert float(seen.abs().max()) == pytest.approx(0.2, rel=1e-6) and float(seen.std()) == pytest.approx(
        0.0959, abs=0.001
    )
    assert abs(float(seen.mean())) < 0.002  # 0.0959 is the deviation of a normal one clipped at two


def test_the_network_alone_is_supervised_and_drawn_to_the_teacher():
    """Loss and gradient by hand, with a squared error for the supervised part."""
    student = torch.tensor([0.3, -0.7]).view(2, 1, 1, 1).requires_grad_()
    teacher = torch.tensor([5.0, 0.9]).view(2, 1, 1, 1)
    loss = CrossConsistencyLoss(nn.MSELoss(), consistency_weight=2.0, supervised_outputs=1)
    value = loss([student, teacher], torch.ones(1, 1, 1, 1))
    p, t = torch.sigmoid(torch.tensor(-0.7)), torch.sigmoid(torch.tensor(0.9))
    assert float(value) == pytest.approx(0.7**2 + 2 * float(p - t) ** 2, rel=1e-6)
    value.backward()
    wanted = [-2 * 0.7, float(2 * 2 * (p - t) * p * (1 - p))]
    assert student.grad.flatten().tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.fixture
def train(run: Callable, phantoms: Path, tmp_path: Path) -> Callable[..., Path]:
    def start(name: str, *overlays: str, **options: object) -> Path:
        places = dict(dataset_dir=str(phantoms), output_dir=str(tmp_path / name))
        settings = dict(max_iterations=6, epoch_length=3, **options)
        run("training", "train.json", "methods/mean_teacher.yaml", *overlays, **places, **settings)
        return tmp_path / name / "segmentation"

    return start


def test_a_training_by_the_overlay_is_resumed_to_the_bit(train, misbehaviour, state_hash):
    whole = train("whole")
    with pytest.raises(SystemExit):
        train("parts", misbehaviour(way="SIGTERM", iteration=4))
    parts = train("parts", resume="true")
    first, second = (folder / "checkpoints" / "checkpoint_epoch=2.pt" for folder in (whole, parts))
    content = load_checkpoint(first)
    assert int(content["teacher"]["n_averaged"]) == 6
    assert not [name for name in content["network"] if name.startswith(("auxiliary", "perturbations"))]
    assert state_hash(first) == state_hash(second)
    assert json.loads((whole / "run.json").read_text())["method"] == "mean_teacher"
    settings = json.loads((whole / "inference.json").read_text())
    assert settings["network_def"]["perturbations"] == []
    with pytest.raises(MGCCError, match="method: was mean_teacher, is mgcc"):
        train("whole", resume="true", method="mgcc")


def test_the_overlay_has_ten_lines_at_most(configs: Path):
    text = (configs / "methods" / "mean_teacher.yaml").read_text()
    assert len(text.splitlines()) <= 10
