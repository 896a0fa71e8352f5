"""Laws of ``fit``: which stage runs when, with what; none twice; a stopped one goes on. The stages are imitated."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from mgcc_monai.errors import MGCCError
from mgcc_monai.runs import fit as module
from mgcc_monai.runs.fit import fit
from mgcc_monai.runs.words import split_words

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = {
    "train_autoencoder": [f"autoencoder/vae/{WEIGHTS}"],
    "train_diffusion": [f"diffusion/pipeline/vae/{WEIGHTS}", f"diffusion/pipeline/unet/{WEIGHTS}"],
    "generate": ["generated/manifest.jsonl", "generated/gate.json"],
    "train": ["segmentation/model.pt", "segmentation/inference.json"],
    "evaluate": ["evaluation/summary.json"],
}
ALL = list(FILES)


class Bundle:
    """Runs the stages: writes what each would, notes what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fail: dict[str, str] = {}
        self.ignored: set[str] = set()
        self.silent: set[str] = set()

    def __call__(self, command: list[str], env: dict[str, str]) -> SimpleNamespace:
        options = dict(zip([word.removeprefix("--") for word in command[5::2]], command[6::2]))
        files = [Path(name) for name in ast.literal_eval(options.pop("config_file"))]
        stage = files[-1].stem if files[-1].stem == "evaluate" else files[0].stem
        self.calls.append({"stage": stage, "head": command[:5], "files": files, "options": options, "env": env})
        output = Path(options["output_dir"])
        names, settings = set(json.loads(files[0].read_text())), {}
        for path in files[1:]:
            settings.update({k: v for k, v in yaml.safe_load(path.read_text()).items() if k in names})
        settings.update({k: v for k, v in options.items() if k in names and k not in self.ignored})
        settings["dataset_dir"] = (Path(options["dataset_dir"]) / "hash").read_text()
        for name in ("output_dir", "bundle_root", "resume"):
            settings.pop(name, None)
        earlier = ALL[: ALL.index(stage)]
        before = output / FILES[earlier[-1]][-1] if earlier else None
        content = json.dumps([settings, before.read_text() if before and before.is_file() else ""])
        way = self.fail.get(stage)
        if way == "with checkpoint":
            write(output / FILES[stage][0].split("/")[0] / "checkpoints" / "checkpoint_epoch=2.pt", content)
        if way:
            return 3
        for name in FILES[stage]:
            write(output / name, f"{name} {hashlib.sha256(content.encode()).hexdigest()}")
            if stage in self.silent:
                break
        return 0

    def stages(self) -> list[str]:
        names, self.calls = [call["stage"] for call in self.calls], []
        return names


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    fake = Bundle()
    monkeypatch.setattr(module, "run_and_forward", fake)
    monkeypatch.setattr(
        "mgcc_monai.data.dataset.load_datalist", lambda folder: {"hash": (Path(folder) / "hash").read_text()}
    )
    monkeypatch.setattr(
        "mgcc_monai.runs.preflight.stages.check_stages", lambda *_, **__: None
    )  # tests/preflight has them
    return fake


@pytest.fixture(scope="module")
def short(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configs with all their names, and without what is in their components, which is slow to read."""
    folder = tmp_path_factory.mktemp("short") / "configs"
    shutil.copytree(configs, folder)
    for path in folder.glob("*.json"):
        content = {k: {} if isinstance(v, dict) else v for k, v in json.loads(path.read_text()).items()}
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture
def given(tmp_path: Path, short: Path) -> dict[str, str]:
    """A bundle, a dataset and a place to write to."""
    shutil.copytree(short, tmp_path / "bundle" / "configs")
    (tmp_path / "bundle" / "configs" / "methods" / "nested.yaml").write_text('"loss#weight": 1\nmethod: nested\n')
    write(tmp_path / "data" / "hash", "abc")
    names = {"output_dir": "runs", "dataset_dir": "data", "bundle_root": "bundle"}
    return {name: str(tmp_path / folder) for name, folder in names.items()}


def test_stages_in_order_with_their_files_and_options(bundle, given):
    fit(**given, preset="small", method="nested", num_images=500, image_size=[64, 64])
    calls = {call["stage"]: call for call in bundle.calls}
    assert bundle.stages() == ALL
    root = Path(given["bundle_root"]) / "configs"
    overlays = [root / "presets" / "small.yaml", root / "methods" / "nested.yaml"]
    for stage, call in calls.items():
        first, *rest = ["train.json", "evaluate.json"] if stage == "evaluate" else [f"{stage}.json"]
        run_id = {"generate": "generating", "evaluate": "evaluating"}.get(stage, "training")
        assert call["head"] == [sys.executable, "-m", "monai.bundle", "run", run_id]
        assert call["files"] == [root / first, *overlays, *(root / name for name in rest)]
        assert call["options"] == {**given, "num_images": "500", "image_size": "[64, 64]"}
        assert all(path.is_absolute() for path in call["files"])
        assert call["env"]["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("choice", [{"method": "supervised"}, {"generated_fraction": 0}, {"consistency_weight": "0"}])
def test_nothing_is_generated_that_nothing_trains_on(bundle, given, choice):
    fit(**given, **choice)
    assert bundle.stages() == ["train", "evaluate"]


def test_run_ids_are_those_of_the_shipped_configs(configs):
    for stage in module.STAGES:
        contents = [json.loads((configs / name).read_text()) for name in stage.configs]
        assert isinstance(contents[-1][stage.run_id], list), stage


def test_relative_folders_hold_from_where_the_command_is_given(bundle, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(output_dir="runs", dataset_dir="data", preset="paper")
    assert bundle.calls[0]["options"] == given
    assert bundle.calls[0]["files"] == [tmp_path / "bundle" / "configs" / "train_autoencoder.json"]
    assert sorted(json.loads((tmp_path / "runs" / "fit.json").read_text())) == sorted(ALL)


def test_phantoms_are_the_default(bundle, given, monkeypatch):
    def phantoms(output: Path) -> str:
        write(Path(output) / "phantoms" / "hash", "of phantoms")
        return str(Path(output) / "phantoms")

    monkeypatch.setattr("mgcc_monai.data.items.embedded_phantoms", phantoms)
    fit(output_dir=given["output_dir"], bundle_root=given["bundle_root"])
    assert bundle.calls[0]["options"]["dataset_dir"] == str(Path(given["output_dir"]) / "phantoms")


def test_second_call_does_nothing(bundle, given, capsys):
    fit(**given, seed=3)
    bundle.stages()
    capsys.readouterr()
    fit(**given, seed=3)
    assert bundle.stages() == []
    assert capsys.readouterr().out.count("done before, skipped") == 5


@pytest.mark.parametrize(
    "change, again",
    [
        ({"kl_weight": 0.5}, ALL),
        ({"diffusion_learning_rate": 0.5}, ALL[1:]),
        ({"num_images": 7}, ALL[2:]),
        ({"max_iterations": 7}, ALL[3:]),
        ({"evaluate_list": "validation"}, ALL[4:]),
        ({"method": "supervised"}, ALL[3:]),
        ({"preset": "paper"}, ALL),
    ],
)
def test_changed_option_runs_the_stages_that_know_it_and_those_behind(change, again, bundle, given):
    fit(**given)
    bundle.stages()
    fit(**{**given, **change})
    assert bundle.stages() == again
    fit(**{**given, **change})
    assert bundle.stages() == []
    fit(**given)
    assert bundle.stages() == again, "and back"


def test_stages_behind_one_that_made_the_same_are_not_done_again(bundle, given):
    bundle.ignored = {"autoencoder_warmup", "num_images"}
    fit(**given)
    bundle.stages()
    fit(**given, autoencoder_warmup=9, num_images=9)
    assert bundle.stages() == ["train_autoencoder", "generate"]


def test_other_data_run_everything(bundle, given):
    fit(**given)
    bundle.stages()
    write(Path(given["dataset_dir"]) / "hash", "another split")
    fit(**given)
    assert bundle.stages() == ALL


def test_edited_config_and_nested_name_of_a_method_count(bundle, given):
    root = Path(given["bundle_root"]) / "configs"
    fit(**given, method="nested")
    bundle.stages()
    path = root / "methods" / "nested.yaml"
    path.write_text(path.read_text().replace("1", "2"))
    fit(**given, method="nested")
    assert bundle.stages()[0] == "train_autoencoder", "'loss' is a name of every training"
    content = json.loads((root / "train_diffusion.json").read_text())
    write(root / "train_diffusion.json", json.dumps({**content, "diffusion_dropout": 0.25}))
    fit(**given, method="nested")
    assert bundle.stages()[0] == "train_diffusion"


@pytest.mark.parametrize("stage", ALL)
@pytest.mark.parametrize("damage", ["deleted", "altered"])
def test_lost_outputs_are_made_again_and_nothing_else(stage, damage, bundle, given):
    fit(**given)
    bundle.stages()
    path = Path(given["output_dir"]) / FILES[stage][-1]
    text = path.read_text()
    path.unlink()
    if damage == "altered":
        write(path, text[:-1])
    fit(**given)
    assert bundle.stages() == [stage]
    assert path.read_text() == text


def failing(bundle: Bundle, given: dict[str, str], stage: str, way: str, **settings: Any) -> list[str]:
    bundle.fail = {stage: way}
    with pytest.raises(MGCCError, match=rf"Stage {stage} failed \(exit code 3\)") as caught:
        fit(**given, **settings)
    assert "\n" not in caught.value.message
    bundle.fail = {}
    return bundle.stages()


@pytest.mark.parametrize("stage", ["train_autoencoder", "train_diffusion", "train"])
def test_stopped_stage_is_resumed_and_those_before_it_are_kept(stage, bundle, given):
    place = ALL.index(stage)
    assert failing(bundle, given, stage, "with checkpoint") == ALL[: place + 1]
    assert failing(bundle, given, stage, "at once") == [stage], "stopped again before its next checkpoint"
    fit(**given)
    assert [call["options"].get("resume") for call in bundle.calls] == ["true", *[None] * (4 - place)]
    assert bundle.stages() == ALL[place:]


@pytest.mark.parametrize("stage", ALL)
def test_stage_without_checkpoint_starts_anew(stage, bundle, given):
    failing(bundle, given, stage, "at once")
    fit(**given)
    assert not any("resume" in call["options"] for call in bundle.calls)
    assert bundle.stages() == ALL[ALL.index(stage) :]


def test_checkpoints_of_other_settings_are_not_resumed_from(bundle, given):
    """Not even when a start with the new settings failed before it wrote its own."""
    failing(bundle, given, "train_diffusion", "with checkpoint")
    for _ in range(2):
        failing(bundle, given, "train_diffusion", "at once", diffusion_learning_rate=0.5)
    fit(**given, diffusion_learning_rate=0.5)
    assert not any("resume" in call["options"] for call in bundle.calls)


def test_own_checkpoints_beside_foreign_ones_are_resumed_from(bundle, given):
    failing(bundle, given, "train_diffusion", "with checkpoint")
    folder = Path(given["output_dir"]) / "diffusion" / "checkpoints"
    os.utime(folder / "checkpoint_epoch=2.pt", (1, 1))
    failing(bundle, given, "train_diffusion", "with checkpoint", diffusion_learning_rate=0.5)
    fit(**given, diffusion_learning_rate=0.5)
    assert bundle.calls[0]["options"]["resume"] == "true"


def test_stage_that_ends_without_its_files_is_told(bundle, given):
    bundle.silent = {"train_diffusion"}
    with pytest.raises(MGCCError, match=r"train_diffusion ended without .*unet"):
        fit(**given)
    bundle.silent = set()
    fit(**given)
    assert bundle.stages() == [*ALL[:2], *ALL[1:]]


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"max_iteration": 5}, "--max_iteration: .*did you mean 'max_iterations'"),
        ({"qqqqqqqq": 1}, "--qqqqqqqq: .*no such option; leave it out.$"),
        ({"resume": True}, "--resume: 'fit' goes on by itself"),
        ({"max_iterations": 0}, "--max_iterations must be an integer >= 1, got 0"),
        (
            {"preset": "smal"},
            "--preset smal: there is no such file; give one of paper, .*demo, keep_aspect, medium, small",
        ),
        ({"method": "nonsense"}, "--method nonsense: .*mgcc, .*supervised"),
        ({"bundle_root": "nowhere"}, r"--bundle_root nowhere: there is no configs/metadata\.json"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(wrong, words, bundle, given, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for without in ({}, {"dataset_dir": None}):
        with pytest.raises(MGCCError, match=words):
            fit(**{**given, **without, **wrong})
    assert not bundle.calls and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["scan#2", "2024_06_30", "a b", "'q'", "1e3", "left,right", "None", "007", "$a", "@x", "%y", "[a]"]
)
def test_paths_arrive_at_the_stages_as_they_were_typed(name, bundle, given, tmp_path, monkeypatch):
    """Each word that a stage is given is read back as fire and MONAI read it."""
    monkeypatch.chdir(tmp_path)
    paths = {"output_dir": f"runs/{name}", "dataset_dir": f"data/{name}", "bundle_root": f"b {name}"}
    write(tmp_path / "data" / name / "hash", "abc")
    shutil.copytree(tmp_path / "bundle", tmp_path / f"b {name}")
    seen: list[dict[str, Any]] = []

    def stage(command: list[str], env: dict[str, str]) -> int:
        words, _ = split_words(command[5:])
        read = ConfigParser({word.name: DefaultParseValue(word.text) for word in words})
        seen.append({word.name: read.get_parsed_content(word.name) for word in words})
        seen[-1]["config_file"] = DefaultParseValue(words[0].text)  # which MONAI takes as it is
        return 3

    monkeypatch.setattr(module, "run_and_forward", stage)
    with pytest.raises(MGCCError, match=r"failed \(exit code 3\)"):
        fit(
            **paths, pretrained=name, models_dir=name, num_images="7", image_size="[64, 64]", perturbation_shared="true"
        )
    wanted = {key: str(tmp_path / path) for key, path in paths.items()} | {"pretrained": name, "models_dir": name}
    wanted |= {"num_images": 7, "image_size": [64, 64], "perturbation_shared": "true"}
    assert {key: seen[0][key] for key in wanted} == wanted
    assert all(Path(file).is_relative_to(tmp_path / f"b {name}") for file in seen[0]["config_file"])


NOTHING_LEARNED = {
    "models_dir": "elsewhere",
    "device": "cpu",
    "num_workers": 3,
    "cache_num": 7,
    "generation_batch_size": 2,
    "preview_count": 3,
}


@pytest.mark.parametrize("name", NOTHING_LEARNED)
def test_options_that_change_no_result_run_nothing_again(name, bundle, given, monkeypatch):
    installed: list[tuple[Any, ...]] = []
    monkeypatch.setattr("mgcc_monai.runs.best_weights.install_weights", lambda *paths: installed.append(paths))
    fit(**given)
    bundle.stages()
    fit(**given, **{name: NOTHING_LEARNED[name]})
    assert bundle.stages() == []
    weights = (Path(given["output_dir"]) / "segmentation", "elsewhere")
    assert installed == ([weights] if name == "models_dir" else []), "weights still go where they were asked to"
    path = Path(given["bundle_root"]) / "configs" / "presets" / "small.yaml"
    path.write_text(path.read_text() + f"{name}: {NOTHING_LEARNED[name]}\n")
    fit(**given)
    assert bundle.stages() == [], "nor where a preset has them"


def test_numbers_are_the_same_however_they_are_written(bundle, given):
    fit(**given, learning_rate="0.010", image_size="(64, 64)")
    bundle.stages()
    fit(**given, learning_rate=0.01, image_size=[64, 64])
    assert bundle.stages() == []
