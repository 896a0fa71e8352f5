"""The record of a run, and the best weights beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256
from mgcc_monai.runs import BestWeights, RunRecord

DATALIST = {"file": "/data/set/dataset.json", "hash": "abc", "protocol": "strict", "split_seed": 3, "label_fraction": 1}


def record(folder: Path, **options: object) -> RunRecord:
    return RunRecord("segmentation", str(folder), DATALIST, {"seed": 5}, **options)


def read(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_run_is_recorded_from_its_start_to_its_end(tmp_path: Path):
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "made.png").write_bytes(b"image")
    files = {"pretrained": str(tmp_path / "weights.pt"), "generated": [{"image": str(tmp_path / "made.png")}] * 2}
    run = record(tmp_path / "run", files=files)
    run.start()
    content = read(tmp_path / "run")
    wanted = {"stage": "segmentation", "seed": 5, "dataset": "/data/set", "dataset_hash": "abc", "protocol": "strict"}
    assert wanted.items() <= content.items() and content["status"] == "running" and content["split_seed"] == 3
    assert content["generated_images"] == 2 and content["pretrained"] != content["generated_hash"]
    assert content["versions"]["torch"] == torch.__version__.split("+")[0] or content["versions"]["torch"]
    run.update(iterations=7)
    run.finish()
    content = read(tmp_path / "run")
    assert content["status"] == "finished" and content["iterations"] == 7 and content["seconds"] >= 0


def test_a_folder_that_holds_a_run_is_moved_aside_unless_it_is_resumed(tmp_path: Path):
    for resume, folders in ((False, ["run"]), (False, ["run", "run.previous-1"]), ("true", ["run", "run.previous-1"])):
        run = record(tmp_path / "run", resume=resume)
        run.start(), run.finish()
        assert sorted(path.name for path in tmp_path.glob("[!.]*")) == folders
    assert len(read(tmp_path / "run")["resumed"]) == 1


def test_a_segmenter_is_not_finished_without_weights(tmp_path: Path):
    run = record(tmp_path / "run", bundle_root=str(tmp_path))
    run.start()
    with pytest.raises(MGCCError, match="model.pt: there is no such file"):
        run.finish()
    run.finish("stopped")


def test_weights_of_the_best_validation_alone_are_kept(tmp_path: Path):
    """Better in epochs 1, 3 and 4 of 6: the file changes in these and no others, and belongs to its settings."""
    network = torch.nn.Linear(1, 1, bias=False)
    run = record(tmp_path / "run")
    run.start()
    saved: list[tuple[float, str]] = []
    run.write_inference = lambda threshold, hashed: saved.append((threshold, hashed))
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name, evaluator.state.best_metric, evaluator.state.best_metric_epoch = "dice", -1.0, -1
    scores = [0.2, 0.1, 0.5, 0.6, 0.6, 0.3]
    written = []

    def validate(engine: Engine) -> None:
        epoch = engine.state.iteration
        torch.nn.init.constant_(network.weight, float(epoch))
        engine.state.metrics, engine.state.epoch = {"val_threshold": epoch / 10}, epoch
        if scores[epoch - 1] > engine.state.best_metric:
            engine.state.best_metric, engine.state.best_metric_epoch = scores[epoch - 1], epoch
        BestWeights(network, run)(engine)
        written.append(float(torch.load(tmp_path / "run" / "model.pt", weights_only=True)["weight"]))

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, validate)
    evaluator.run(range(6))
    assert written == [1, 1, 3, 4, 4, 4] and [threshold for threshold, _ in saved] == [0.1, 0.3, 0.4]
    assert saved[-1][1] == sha256(tmp_path / "run" / "model.pt")
    assert read(tmp_path / "run")["best"] == {"epoch": 4, "dice": 0.6, "threshold": 0.4}
    run.finish()
