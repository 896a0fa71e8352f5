"""A training that was stopped and resumed is bitwise the one that never stopped; a failing write harms nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.transforms import Compose, RandFlipd, RandGaussianNoised
from tiny import same
from torch import nn

from mgcc_monai.data import ResumableSampler, SeededCacheDataset, TwoStreamLoader
from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import IterationSeed, ResumableCheckpoint
from mgcc_monai.losses import CrossConsistencyLoss
from mgcc_monai.methods import TwoStreamPrepareBatch

BATCHES = 3


class Net(nn.Module):
    """Two heads, with dropout and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.4))
        self.heads = nn.ModuleList(nn.Conv2d(3, 1, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.body(x)
        return [head(features) for head in self.heads]


def two_streams(workers: int) -> TwoStreamLoader:
    generator = torch.Generator().manual_seed(0)
    data = [{"image": torch.rand(1, 6, 6, generator=generator)} for _ in range(7)]
    data = [{**item, "label": (item["image"] > 0.5).float()} for item in data]
    loaders = []
    for stream in (0, 1):
        transform = Compose([RandFlipd(["image", "label"], prob=0.5), RandGaussianNoised("image", prob=1.0)])
        sampler = ResumableSampler(len(data), 2, BATCHES, seed=4, stream=stream)
        dataset = SeededCacheDataset(data, transform)
        loaders.append(DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers))
    return TwoStreamLoader(*loaders)


def train(
    folder: Path,
    epochs: int,
    resume: bool = False,
    workers: int = 0,
    seeded: bool = True,
    others: Sequence[Any] = (),
    evaluator: Engine | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train a tiny network as the bundle trains; a process that starts anew is imitated by another start seed."""
    torch.manual_seed(100)
    network = Net()
    torch.manual_seed(200 + epochs)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    objects = {"network": network, "optimizer": optimizer, "lr_scheduler": scheduler}
    loader = two_streams(workers)
    losses: list[float] = []
    checkpoint = ResumableCheckpoint(str(folder), objects, resume=resume, evaluator=evaluator, **options)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=CrossConsistencyLoss(nn.BCEWithLogitsLoss(), consistency_weight=1.0),
        prepare_batch=TwoStreamPrepareBatch(),
        inferer=SimpleInferer(),
        train_handlers=[*([IterationSeed(8, loader)] if seeded else []), *others, checkpoint],
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: scheduler.step())
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output[0]["loss"])))
    trainer.run()
    states = {name: thing.state_dict() for name, thing in objects.items()}
    return {"losses": losses, "epoch": trainer.state.epoch, "iteration": trainer.state.iteration, **states}


class Preview:
    """Something that draws random numbers between the epochs of one run."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: torch.rand(17))


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_training_is_the_one_that_never_stopped(workers, tmp_path):
    whole = train(tmp_path / "whole", 4, workers=workers, others=[Preview()])
    train(tmp_path / "parts", 2, workers=workers)
    resumed = train(tmp_path / "parts", 4, resume=True, workers=workers)
    assert (resumed["epoch"], resumed["iteration"]) == (4, 4 * BATCHES)
    assert resumed["losses"] == whole["losses"][2 * BATCHES :]
    assert len(set(whole["losses"])) == 4 * BATCHES
    for name in ("network", "optimizer", "lr_scheduler"):
        assert same(resumed[name], whole[name]), name


def test_without_progress_seed_it_would_be_another(tmp_path):
    """What the test above finds if randomness hangs on what was drawn before."""
    whole = train(tmp_path / "whole", 4, seeded=False)
    train(tmp_path / "parts", 2, seeded=False)
    resumed = train(tmp_path / "parts", 4, resume=True, seeded=False)
    assert not same(resumed["network"], whole["network"])


def test_number_of_workers_changes_nothing(tmp_path):
    assert same(train(tmp_path / "a", 1, workers=0)["network"], train(tmp_path / "b", 1, workers=2)["network"])


def test_resuming_a_finished_training_does_nothing(tmp_path):
    done = train(tmp_path, 2)
    again = train(tmp_path, 2, resume=True)
    assert again["losses"] == [] and same(again["network"], done["network"])


def test_nothing_to_resume_is_told(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        (tmp_path / "model.pt").write_bytes(b"best weights are no checkpoint")
        with pytest.raises(MGCCError) as caught:
            train(folder, 1, resume=True)
        assert str(folder) in str(caught.value) and "checkpoint_epoch=" in str(caught.value)


def test_start_anew_does_not_read_what_is_there(tmp_path):
    first = train(tmp_path, 2)
    second = train(tmp_path, 2)
    assert second["losses"] == first["losses"]


def test_another_run_is_refused(tmp_path, monkeypatch):
    train(tmp_path, 1)
    monkeypatch.setitem(globals(), "BATCHES", 2)
    with pytest.raises(MGCCError, match=r"epoch_length 3, this run has 2"):
        train(tmp_path, 2, resume=True)


def test_another_network_is_refused(tmp_path, monkeypatch):
    train(tmp_path, 1)
    monkeypatch.setitem(globals(), "Net", lambda: nn.Conv2d(1, 1, 1))
    with pytest.raises(MGCCError, match=r"checkpoint_epoch=1\.pt: 'network' does not fit"):
        train(tmp_path, 2, resume=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept(tmp_path):
    train(tmp_path, 12)  # 9 < 10, although "9" > "10"
    assert names(tmp_path) == ["checkpoint_epoch=11.pt", "checkpoint_epoch=12.pt"]


def test_interval_and_the_last_epoch(tmp_path):
    train(tmp_path, 5, interval=2, keep=9)
    assert names(tmp_path) == [f"checkpoint_epoch={epoch}.pt" for epoch in (2, 4, 5)]


@pytest.mark.parametrize("resume", [True, False])
def test_failing_write_leaves_what_was_there(resume, tmp_path, monkeypatch):
    """The disk fills up in the middle of a file: of a new epoch, or of one that is written again."""
    train(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(content: Any, file: Any, **kwargs: Any) -> None:
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(MGCCError, match="No space left"):
        train(tmp_path, 3, resume=resume)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert train(tmp_path, 3, resume=True)["epoch"] == 3


def test_best_metric_is_kept(tmp_path):
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = 0.75, 1
    train(tmp_path, 2, evaluator=evaluator)
    fresh = Engine(lambda engine, batch: None)
    fresh.state.best_metric, fresh.state.best_metric_epoch = -1, -1
    train(tmp_path, 2, resume=True, evaluator=fresh)
    assert (fresh.state.best_metric, fresh.state.best_metric_epoch) == (0.75, 1)
