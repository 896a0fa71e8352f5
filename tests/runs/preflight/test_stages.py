"""What a later stage would refuse, ``fit`` refuses before the first; a stage alone does before it writes anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from mgcc_monai.data.contents import LISTS
from mgcc_monai.data.dataset import load_datalist, write_dataset
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.errors import MGCCError
from mgcc_monai.networks import MGCC
from mgcc_monai.runs import fit as module
from mgcc_monai.runs.preflight import generation as generation_checks
from mgcc_monai.runs.preflight import segmentation
from mgcc_monai.runs.preflight.generation import check_generator_data
from mgcc_monai.runs.preflight.segmentation import check_training
from mgcc_monai.runs.preflight.stages import check_stages
from mgcc_monai.runs.preflight.table import WORKFLOWS

TINY = Path(__file__).parents[2] / "bundle" / "tiny.yaml"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy phantoms: enough for every stage."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(str(folder), count=70, seed=5, label_fraction=0.5, size=(32, 40))
    return folder


def with_lists(source: Path, target: Path, **counts: int) -> Path:
    """A copy of a dataset, some of whose lists are cut."""
    shutil.copytree(source, target)
    content = json.loads((target / "dataset.json").read_text())
    lists = {name: content[name][: counts.get(name, len(content[name]))] for name in LISTS}
    write_dataset(target, lists, **{key: content[key] for key in ("protocol", "split_seed", "label_fraction")})
    return target


@pytest.fixture
def fit(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """``fit(dataset, **options)``: what it said, and the stages that it began.

    ``data`` is which of the two rounds of checks to run, both where it is None; files are not read one by one.
    """
    for stage in ("train_autoencoder", "train"):
        without = [check for check in WORKFLOWS[stage] if check.function is not segmentation.check_data]
        monkeypatch.setitem(WORKFLOWS, stage, without)
    (bundle / "configs" / "presets" / "tiny.yaml").write_text(TINY.read_text())

    def call(dataset: Path, data: bool | None = None, **options: Any) -> SimpleNamespace:
        begun: list[str] = []
        rounds = (True, False) if data is None else (data,)
        checks = lambda *laid, data: check_stages(*laid, data=data) if data in rounds else None  # noqa: E731
        monkeypatch.setattr("mgcc_monai.runs.preflight.stages.check_stages", checks)
        monkeypatch.setattr(module, "run_and_forward", lambda command, env: (begun.append(command[6]), 3)[1])
        folders = {"bundle_root": str(bundle), "output_dir": str(tmp_path / "out"), "dataset_dir": str(dataset)}
        with pytest.raises(MGCCError) as error:
            module.fit(**{**folders, "preset": "tiny", **options})
        return SimpleNamespace(text=str(error.value), begun=begun, output=tmp_path / "out")

    return call


def test_what_no_stage_refuses_reaches_the_first(fit, many: Path) -> None:
    done = fit(many)
    assert len(done.begun) == 1 and "train_autoencoder" in done.begun[0]


def test_nothing_is_refused_for_a_path_that_monai_would_change(fit, many: Path, bundle: Path, tmp_path: Path) -> None:
    for source, target in ((bundle, tmp_path / "my clone #1" / "bundle"), (many, tmp_path / "data #2" / "1e3")):
        shutil.copytree(source, target)
    done = fit(tmp_path / "data #2" / "1e3", bundle_root=str(tmp_path / "my clone #1" / "bundle"))
    assert len(done.begun) == 1 and "train_autoencoder" in done.begun[0]


OPTIONS = [  # what depends on nothing else
    ({"image_size": [16, 16], "batch_size": 1, "consistency_weight": 0}, "Expected more than 1 value per channel"),
    ({"image_size": [16, 16], "batch_size": 1, "method": "supervised"}, "--batch_size"),
    ({"image_size": [48, 40]}, "--image_size [48, 40]: give two multiples of 16"),
    ({"channels": [4]}, "at least two levels"),
    ({"image_size": [32, 64], "preset": "tiny,keep_aspect"}, "must have two equal sides where the aspect is kept"),
    ({"autoencoder_patch_size": [8, 8]}, "patches of [8, 8] pixels"),
    ({"adversarial_weight": 0.1}, "patches of [16, 16] pixels"),  # the discriminator's, after most of the training
    ({"diffusion_channels": [30, 32]}, "--diffusion_channels [30, 32]: give multiples of 32."),
    ({"diffusion_attention": [True]}, "--diffusion_attention [True]: 1 levels"),
    ({"diffusion_channels": [32] * 5, "diffusion_attention": [False] * 5}, "give two multiples of 64"),
    ({"diffusion_dropout": 2.0}, "--diffusion_dropout must be a number >= 0 and <= 1, got 2.0."),
    ({"diffusion_prediction_type": "sample"}, "--diffusion_prediction_type sample: give one of epsilon"),
    ({"diffusion_prediction_type": "velocity"}, "--diffusion_prediction_type velocity"),
    ({"consistency_detach": "both"}, "detach must be one of none, main, auxiliary, got 'both'"),
    ({"num_inference_steps": 1001}, "num_inference_steps 1001"),
]
DATA = [  # what depends on the dataset, or on what a stage would make of it
    ({"inference_scheduler": "DDIMSchedular"}, "DDIMScheduler"),
    ({"evaluate_list": "tests"}, "--evaluate_list tests: give one of validation, test."),
    ({"evaluate_list": "training"}, "--evaluate_list training"),
    ({"unlabeled_lists": ["test"]}, "'test'"),
    ({"trained_lists": ["validation"]}, "'validation'"),
    ({"threshold": 1.5}, "--threshold must be a number >= 0 and <= 1, got 1.5."),
    ({"generated_fraction": 1.5}, "--generated_fraction must be a number >= 0 and <= 1, got 1.5."),
    ({"generated_fraction": "half"}, "--generated_fraction half"),
    ({"indices": []}, "indices"),
    ({"indices": [-1]}, "indices -1"),
    ({"batch_size": 60}, "labelled images for batches of 60"),
    ({"autoencoder_batch_size": 60}, "images for batches of 60"),
    ({"diffusion_batch_size": 60}, "images for batches of 60"),
    ({"unlabeled_batch_size": 13}, "12 of them generated, for batches of 13"),
    ({"unlabeled_batch_size": 4, "indices": [3, 5, 7]}, "3 of them generated, for batches of 4"),
    ({"class_labels": "benign"}, "--class_labels benign: no such class; the model knows 'cyst', 'shadowing', 'solid'."),
    ({"class_labels": ["cyst", "solid"]}, "class_labels: 2 for 12 images"),
    ({"class_proportions": [0.5, 0.5]}, "give 3 shares"),
    ({"class_proportions": "half"}, "class_proportions half: give 3 shares"),
    ({"classes": ["benign"]}, "no image to learn from is 'benign'"),
    ({"classes": [], "guidance_scale": 2.0}, "guidance_scale 2.0: the model knows no classes"),
    ({"pretrained": "nowhere.pt"}, "nowhere.pt: there is no such file of weights"),
    ({"ckpt_path": "nowhere.pt"}, "nowhere.pt: there is no such file of weights"),
]


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [*((False, *case) for case in OPTIONS), *((True, *case) for case in DATA)],
    ids=lambda value: str(value)[:60],
)
def test_options_that_a_later_stage_refuses(fit, many: Path, data: bool, options: dict, told: str) -> None:
    done = fit(many, data, **options)
    assert told in done.text and "\n" not in done.text
    assert not done.begun and not done.output.exists()


def test_weights_of_another_network(fit, many: Path, tmp_path: Path) -> None:
    torch.save(MGCC(1, 1, (2, 4, 8), (1,)).state_dict(), tmp_path / "other.pt")
    done = fit(many, True, pretrained=str(tmp_path / "other.pt"))
    assert "another network" in done.text and not done.begun


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"validation": 3}, "3 held-out images found; give at least 5"),
        ({"validation": 4}, "4 held-out images found"),
        ({"validation": 0}, "list 'validation': empty"),
        ({"test": 0}, "list 'test': empty, so there is nothing to evaluate"),
        ({"training": 4, "unlabeled": 5}, "9 training images found; the gate needs at least 10"),
        ({"training": 1}, "1 labelled images for batches of 2"),
    ],
)
def test_lists_that_a_later_stage_refuses(fit, many: Path, tmp_path: Path, counts: dict, told: str) -> None:
    done = fit(with_lists(many, tmp_path / "few", **counts), True)
    assert told in done.text and not done.begun and not done.output.exists()


def test_training_images_most_of_which_are_copies(fit, many: Path, tmp_path: Path) -> None:
    """The gate measures how far training images are apart; it cannot where most have a copy."""
    target = with_lists(many, tmp_path / "copies")
    content = json.loads((target / "dataset.json").read_text())
    first = content["unlabeled"][0]
    for item in content["unlabeled"][1:]:
        shutil.copy(target / first["image"], target / item["image"])
        item.update(sha256=first["sha256"], group=first["group"])
    lists = {name: content[name] for name in LISTS} | {"training": content["training"][:12]}
    write_dataset(target, lists, protocol="strict", split_seed=0, label_fraction=0.5)
    done = fit(target, True)
    assert "most training images have an exact copy" in done.text and not done.begun


def test_only_the_stages_that_run_are_asked(fit, many: Path, tmp_path: Path) -> None:
    """Without generated images there is no gate, so few held-out images are enough."""
    done = fit(with_lists(many, tmp_path / "few", validation=3), method="supervised", diffusion_channels=[30, 32])
    assert len(done.begun) == 1 and "train.json" in done.begun[0]


def test_a_dataset_is_checked_once_as_long_as_no_file_changes(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all the stages of a run, which have one folder; a changed file, or another folder, is checked again."""
    data = with_lists(many, tmp_path / "data")
    datalist, checked, real = load_datalist(data), [], segmentation.check_dataset
    monkeypatch.setattr(
        segmentation, "check_dataset", lambda file, **options: checked.append(file) or real(file, **options)
    )

    def check(output: str = "out") -> int:
        segmentation.check_data(datalist, datalist["training"], str(tmp_path / output))
        return len(checked)

    assert [check(), check(), check()] == [1, 1, 1]
    assert [check("another"), check("another")] == [2, 2]
    image = Path(datalist["training"][0]["image"])
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    assert [check(), check()] == [3, 3]
    image.write_bytes(image.read_bytes()[:-100])
    for _ in range(2):  # what has not passed is not noted
        with pytest.raises(MGCCError, match=image.name):
            check()
    assert len(checked) == 5


def test_phantoms_are_not_made_for_options_that_cannot_be(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcc_monai.data.items.embedded_phantoms", lambda output: pytest.fail("phantoms were made"))
    for options in ({"image_size": [40, 48]}, {"diffusion_channels": [30, 32]}, {"num_inference_steps": 1001}):
        assert not fit("", **options).begun


# Stages alone


def test_a_batch_of_one_value_a_channel_is_refused_by_the_stage(run, phantoms: Path, tmp_path: Path) -> None:
    options = {"image_size": [16, 16], "batch_size": 1, "consistency_weight": 0.0}
    with pytest.raises(MGCCError, match="Expected more than 1 value per channel") as error:
        run("training", "train.json", dataset_dir=str(phantoms), **options)
    assert "\n" not in str(error.value) and not (tmp_path / "runs").exists()


def test_the_gate_asks_for_its_images_before_any_is_generated(run, phantoms: Path, tmp_path: Path) -> None:
    run("training", "train_autoencoder.json", dataset_dir=str(phantoms))
    run("training", "train_diffusion.json", dataset_dir=str(phantoms))
    held_out = len(load_datalist(phantoms)["validation"])
    with pytest.raises(MGCCError, match=f"{held_out} held-out images found; give at least 5"):
        run("generating", "generate.json", dataset_dir=str(phantoms))
    assert not (tmp_path / "runs" / "generated").exists()
    for name in ("classes", "class_proportions"):
        with pytest.raises(MGCCError, match=name):
            run("training", "train_diffusion.json", dataset_dir=str(phantoms), **{name: ["cyst", "x"]})


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_process_needs_a_batch(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    for checks in (segmentation, generation_checks):
        monkeypatch.setattr(checks, "rank_and_size", lambda: (0, ranks))
    items = [{"image": str(number)} for number in range(8)]
    datalist = {"training": items, "validation": items[:1], "unlabeled": items}
    for check in (
        lambda size: check_training(datalist, items, size, 1, 1.0),
        lambda size: check_training(datalist, items, 1, size, 1.0),
        lambda size: check_generator_data(datalist, items, size),
    ):
        check(8 // ranks)
        with pytest.raises(MGCCError, match=f"batches of {(8 // ranks + 1) * ranks}"):
            check(8 // ranks + 1)


def test_checks_draw_no_random_number(configs: Path) -> None:
    """A training with a seed is what it was before there were checks that build networks."""
    expressions = {
        "train.json": "check_segmenter_step(@image_size, @batch_size, @unlabeled_batch_size, @consistency_weight)",
        "train_autoencoder.json": "check_autoencoder_shape(@image_size, @image_size, 1, @autoencoder_channels)",
    }
    for name, expression in expressions.items():
        parser = ConfigParser()
        parser.read_config(str(configs / name))
        parser.update(
            {
                "adversarial_weight": 0.1,
                "image_size": [64, 64],
                "run": f"$mgcc_monai.runs.preflight.shapes.{expression}",
            }
        )
        state = torch.random.get_rng_state()
        parser.get_parsed_content("run")
        assert torch.equal(state, torch.random.get_rng_state()), name


@pytest.mark.parametrize(("batch", "unlabelled", "weight"), [(1, 4, 0.0), (1, 4, 1.0), (2, 1, 0.0)])
def test_batch_normalisation_needs_two_values(configs: Path, batch: int, unlabelled: int, weight: float) -> None:
    parser = ConfigParser()
    parser.read_config(str(configs / "train.json"))
    parser.update({"channels": [4, 4, 8, 8, 16]})
    parser.update(
        {"run": f"$mgcc_monai.runs.preflight.shapes.check_segmenter_step([16, 16], {batch}, {unlabelled}, {weight})"}
    )
    network = MGCC(channels=[4, 4, 8, 8, 16]).train()
    images = torch.zeros(batch + (unlabelled if weight else 0), 1, 16, 16)
    if len(images) > 1:
        network(images)
        parser.get_parsed_content("run")
        return
    with pytest.raises(ValueError, match="more than 1 value"):
        network(images)
    with pytest.raises(MGCCError, match="more than 1 value"):
        parser.get_parsed_content("run")
