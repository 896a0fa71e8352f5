"""A training takes exactly the iterations asked for, its schedules end with it, and its last weights are validated."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from tiny import same

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import Preempted, TrainingEnd
from mgcc_monai.handlers.ending import planned_iterations
from mgcc_monai.handlers.training_run import TrainingRun
from mgcc_monai.losses import consistency_ramp
from mgcc_monai.weights import load_checkpoint

STAGES = {"autoencoder": "train_autoencoder.json", "diffusion": "train_diffusion.json", "segmentation": "train.json"}
PREFIX = {"autoencoder": "autoencoder_", "diffusion": "diffusion_", "segmentation": ""}


@pytest.fixture
def train(run: Callable, phantoms: Path, encoded: Path, tmp_path: Path) -> Callable:
    """``train(stage, name, length, epoch, *overlays, **options)``: the folder of the stage, trained so long."""

    def start(stage: str, name: str, length: int, epoch: int, *overlays: str, **options: Any) -> Path:
        output = tmp_path / name
        if stage == "diffusion" and not output.exists():
            shutil.copytree(encoded, output / "autoencoder")
        own = {f"{PREFIX[stage]}max_iterations": length, f"{PREFIX[stage]}epoch_length": epoch}
        places = dict(dataset_dir=str(phantoms), output_dir=str(output))
        run("training", STAGES[stage], *overlays, **places, **own, **options)
        return output / stage

    return start


def content(folder: Path, name: str) -> dict[str, Any]:
    return load_checkpoint(folder / "checkpoints" / name)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_epochs_that_do_not_divide_the_iterations_change_nothing(train, stage, workers):
    """Five iterations in epochs of three are five in one epoch: weights, momenta, averages and schedule, to the bit."""
    parts = train(stage, "parts", 5, 3, num_workers=workers)
    whole = content(train(stage, "whole", 5, 5), "checkpoint_epoch=1.pt")
    found = content(parts, "checkpoint_epoch=2.pt")
    assert found["progress"] == {"iteration": 5, "epoch": 2, "epoch_length": 3, "max_iterations": 5}
    for name in found.keys() - {"progress", "best"}:
        assert same(found[name], whole[name]), name
    record = json.loads((parts / "run.json").read_text())
    assert (record["iterations"], record["max_iterations"], record["status"]) == (5, 5, "finished")


@pytest.mark.parametrize("length", [1, 2, 7])
def test_any_number_of_iterations(train, length):
    folder = train("segmentation", "runs", length, 3)
    (newest,) = sorted((folder / "checkpoints").iterdir())[-1:]
    assert newest.name == f"checkpoint_epoch={math.ceil(length / 3)}.pt"
    assert content(folder, newest.name)["progress"]["iteration"] == length


@pytest.mark.parametrize(
    ("part", "event", "iteration", "saved"),
    [
        ("train", "ITERATION_STARTED", 4, "checkpoint_epoch=1_iteration=4.pt"),
        ("train", "ITERATION_STARTED", 5, "checkpoint_epoch=1_iteration=5.pt"),
        ("validate", "ITERATION_STARTED", 1, "checkpoint_epoch=1_iteration=5.pt"),
    ],
)
@pytest.mark.parametrize("stage", ["segmentation", "diffusion"])
def test_stopped_in_the_short_last_epoch(train, misbehaviour, stage, part, event, iteration, saved):
    """Within it, behind its last iteration and in its validation; gone on with to the bit."""
    whole = train(stage, "whole", 5, 3)
    at = dict(iteration=iteration, epoch=2 if part == "validate" else None)
    with pytest.raises(Preempted):
        train(stage, "parts", 5, 3, misbehaviour(part, way="SIGTERM", event=event, **at))
    folder = whole.parents[1] / "parts" / stage
    assert saved in [path.name for path in (folder / "checkpoints").iterdir()]
    train(stage, "parts", 5, 3, resume="true", num_workers=2)
    name = "checkpoint_epoch=2.pt"
    assert same(content(folder, name), content(whole, name))
    train(stage, "parts", 5, 3, resume="true")  # nothing is left to do
    assert same(content(folder, name), content(whole, name))
    assert json.loads((folder / "run.json").read_text())["iterations"] == 5


def test_a_client_that_sets_more_epochs_gets_them_whole(train):
    folder = train("segmentation", "runs", 5, 3, **{"train#trainer#max_epochs": 3})
    assert json.loads((folder / "run.json").read_text())["iterations"] == 9
    assert content(folder, "checkpoint_epoch=3.pt")["optimizer"]["param_groups"][0]["lr"] == 0


@pytest.mark.parametrize(
    ("epochs", "length", "asked", "taken"),
    [(2, 3, 5, 5), (2, 3, 6, 6), (1, 3, 5, 3), (3, 3, 5, 9), (1, 8, 5, 5), (2, 3, None, 6), (2, 500, 700, 700)],
)
def test_planned_iterations(epochs, length, asked, taken):
    state = SimpleNamespace(max_epochs=epochs, epoch_length=length)
    assert planned_iterations(SimpleNamespace(state=state), asked) == taken


@pytest.mark.parametrize("stage", STAGES)
def test_schedules_stay_at_their_end(configs, stage):
    """The rate is 0 from the end of ``max_iterations`` on and not before, however long training goes on."""
    parser = ConfigParser()
    parser.read_config([configs / STAGES[stage], Path(__file__).parents[1] / "bundle" / "tiny.yaml"])
    weight = torch.nn.Parameter(torch.zeros(1))
    names = [f"{PREFIX[stage]}{name}" for name in ("optimizer", "lr_scheduler")]
    parser[names[0]] = {"_target_": "torch.optim.SGD", "params": [weight], "lr": 0.01}
    parser.update({f"{PREFIX[stage]}max_iterations": 700, f"{PREFIX[stage]}warmup": 100})
    parser[names[0]]["params"] = "$[torch.nn.Parameter(torch.zeros(1))]"
    schedule = parser.get_parsed_content(names[1])
    rates = []
    for _ in range(1500):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    assert rates.index(max(rates)) == (0 if stage == "segmentation" else 100)
    assert min(rates[101:700]) > 0 and max(rates[700:]) == 0
    if stage == "diffusion":  # half a cosine behind the warmup
        wanted = [0.005 * (1 + math.cos(math.pi * (step - 100) / 600)) for step in range(100, 700)]
        assert rates[100:700] == pytest.approx(wanted, rel=1e-12)
    weights = [consistency_ramp(step, max_iterations=700) for step in range(1, 1500)]
    assert weights == sorted(weights) and set(weights[700:]) == {7.0}


class Net(torch.nn.Module):
    """Gives back what it gets."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def validated(epochs: int, interval: int, stop_at: int = 0, length: int = 2, iterations: int | None = None) -> list:
    """The iterations whose weights were validated, of a training that an earlier handler may end."""
    loader = [{"image": torch.zeros(1, 1), "label": torch.zeros(1, 1)}]
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=Net())
    trainer = Engine(lambda engine, batch: None)
    found: list[int] = []
    evaluator.add_event_handler(Events.COMPLETED, lambda _: found.append(trainer.state.iteration))
    ValidationHandler(interval=interval, validator=evaluator).attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def stop(engine: Engine) -> None:
        if engine.state.epoch == stop_at:
            engine.terminate()

    TrainingEnd(evaluator, iterations or epochs * length).attach(trainer)
    trainer.run(range(length), max_epochs=epochs)
    return found


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (dict(epochs=3, interval=1), [2, 4, 6]),
        (dict(epochs=3, interval=9), [6]),
        (dict(epochs=5, interval=2), [4, 8, 10]),
        (dict(epochs=4, interval=2), [4, 8]),
        (dict(epochs=3, interval=9, iterations=5), [5]),
        (dict(epochs=3, interval=2, iterations=5), [4, 5]),
        (dict(epochs=9, interval=2, stop_at=3), [4, 6]),
        (dict(epochs=9, interval=9, stop_at=3), [6]),
    ],
)
def test_the_last_epoch_is_validated_once(options, wanted):
    """Whatever the interval, and also when the training is ended early."""
    assert validated(**options) == wanted


@pytest.mark.parametrize(("length", "epoch", "interval"), [(4, 2, 5), (5, 3, 2), (6, 2, 2), (3, 2, 10**6)])
def test_a_finished_training_has_weights_of_a_validation(train, length, epoch, interval):
    folder = train("segmentation", "runs", length, epoch, val_interval=interval)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and (folder / "model.pt").is_file() and (folder / "inference.json").is_file()
    assert 1 <= record["best"]["epoch"] <= math.ceil(length / epoch)


def test_early_stopping_counts_validations_and_not_epochs(train):
    """Of every second epoch; the log says which was no better, and what was stopped stays so when it is resumed."""
    options = dict(val_interval=2, early_stopping=2, learning_rate=0.0)
    folder = train("segmentation", "runs", 80, 2, **options)
    record = json.loads((folder / "run.json").read_text())
    scores = [
        float(score)
        for score in re.findall(r"validation: val_mean_dice ([\d.e-]+)", (folder / "training.log").read_text())
    ]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 2 < 20 and record["status"] == "finished"
    assert record["iterations"] == 2 * 2 * len(scores)
    (newest,) = (folder / "checkpoints").glob(f"checkpoint_epoch={2 * len(scores)}.pt")
    before = newest.read_bytes()
    train("segmentation", "runs", 80, 2, **options, resume="true")
    assert json.loads((folder / "run.json").read_text())["iterations"] == record["iterations"]
    assert newest.read_bytes() == before and len(list((folder / "checkpoints").iterdir())) == 2


def test_a_better_validation_starts_the_count_anew_and_so_does_none_before_the_first():
    """By the handler alone: patience 3, better at the first, second and fourth validation."""
    evaluator, trainer = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name = "dice"
    scores = iter([0.1, 0.2, 0.2, 0.4, 0.3, 0.4, 0.1, 0.5])
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(dice=next(scores)))
    record = SimpleNamespace(folder=Path("unused"), resume=False)
    state, end = {"network": Net()}, 10**6
    run = TrainingRun(record, state, None, evaluator, None, end, seed=0, early_stopping=3)
    run.early_stop.set_trainer(trainer)
    run.early_stop.attach(evaluator)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=5), lambda _: evaluator.run([0]))
    trainer.run([0], max_epochs=60)
    assert trainer.state.epoch == 5 * 7


def test_a_training_that_ended_without_a_validation_is_validated_when_resumed(train):
    """As the version before left it: finished, and no weights."""
    folder = train("segmentation", "runs", 4, 2, val_interval=9)
    best = torch.load(folder / "model.pt", weights_only=True)
    for name in ("model.pt", "inference.json"):
        (folder / name).unlink()
    path = folder / "checkpoints" / "checkpoint_epoch=2.pt"
    torch.save({**load_checkpoint(path), "best": {"metric": -1.0, "epoch": -1}}, path)
    train("segmentation", "runs", 4, 2, val_interval=9, resume="true")
    again = torch.load(folder / "model.pt", weights_only=True)
    assert all(torch.equal(best[name], again[name]) for name in best)


def test_no_run_is_finished_without_weights(train):
    """Also where they were taken away from a finished one that is resumed."""
    folder = train("segmentation", "runs", 4, 2)
    (folder / "model.pt").unlink()
    with pytest.raises(MGCCError, match="model.pt: there is no such file, so the training ends without weights"):
        train("segmentation", "runs", 4, 2, resume="true")
    assert json.loads((folder / "run.json").read_text())["status"] != "finished"
