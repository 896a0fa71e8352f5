"""Options are read strictly, and misspelt ones are refused with the name that was meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.parse import parse_bool
from mgcc_monai.runs.config import active_parser, check_config, literal
from mgcc_monai.runs.options import read_options


@pytest.mark.parametrize("value", [True, 1, "true", "True", " TRUE ", "yes", "on", "1"])
def test_true(value):
    assert parse_bool(value) is True


@pytest.mark.parametrize("value", [False, 0, "false", "False", " FALSE", "no", "Off", "0"])
def test_false(value):
    assert parse_bool(value) is False


@pytest.mark.parametrize("value", ["", "ture", "none", None, 2, -1, 0.5, "y", [], [True], "true false"])
def test_neither(value):
    with pytest.raises(MGCCError, match="--resume .*neither true nor false"):
        parse_bool(value, "resume")


def parser() -> ConfigParser:
    config = {
        "width": 4,
        "channels": ["@width", "$2 * @width"],
        "empty": "",
        "made": "$__import__('torch').zeros(2)",
        "network_def": {
            "_target_": "mgcc_monai.networks.MGCC",
            "channels": "@channels",
            "dropout": "$@width / 8",
            "perturbations": [{"_target_": "mgcc_monai.networks.Dropout", "p": 0.3}, {"_target_": "x", "y": "@made"}],
        },
        "broken": {"tensor": "@made"},
    }
    parser = ConfigParser(config)
    parser.parse()
    return parser


def test_literal_replaces_references_and_keeps_targets():
    config = parser()
    config["network_def"]["perturbations"].pop()
    config.parse()
    found = literal(config, "network_def")
    assert found == {
        "_target_": "mgcc_monai.networks.MGCC",
        "channels": [4, 8],
        "dropout": 0.5,
        "perturbations": [{"_target_": "mgcc_monai.networks.Dropout", "p": 0.3}],
    }
    network = ConfigParser({"network": {**found, "mixer_depths": [1]}}).get_parsed_content("network")
    assert network.dropout.p == 0.5, "it stands alone"
    assert literal(config, "empty") == ""
    assert literal(config, "width") == 4


def test_literal_refuses_what_json_cannot_hold():
    with pytest.raises(MGCCError, match=r"broken::tensor.*Tensor.*JSON"):
        literal(parser(), "broken")


def bundle(
    folder: Path, changes: dict[str, Any] | None = None, kinds: dict[str, str] | None = None
) -> tuple[Path, Path]:
    """A small bundle, and the config of a run of it, which is the bundle's with changes."""
    configs = folder / "configs"
    (configs / "presets").mkdir(parents=True)
    config = {
        "imports": ["$import mgcc_monai"],
        "root": str(folder),
        "max_iterations": 10,
        "out_channels": 1,
        "loss": {"_target_": "monai.losses.DiceCELoss", "sigmoid": "$@out_channels == 1", "lambda_ce": 0.5},
        "open": {"_target_": "torch.nn.MSELoss", "reduction": "mean"},
        "nested": {"stages": [{"_target_": "mgcc_monai.networks.Dropout", "p": 0.3}]},
        "anything": {"_target_": "builtins.dict", "some": 1, "names": 2},
        "initialize": [],
        "run": ["$mgcc_monai.runs.config.check_config(@root)"],
    }
    (configs / "train.json").write_text(json.dumps(config))
    kinds = {"max_iterations": "integer", "out_channels": "integer", "only_in_a_preset": "any"} | (kinds or {})
    options = {name: {"kind": "part", "meaning": ""} for name in config}
    options |= {name: {"meaning": "", "least": 1, "kind": kind} for name, kind in kinds.items()}
    for name in options.keys() & {"seed", "stop", "rate"}:
        options[name]["least"] = 0
    (configs / "options.yaml").write_text(json.dumps(options))
    run = folder / "run.json"
    run.write_text(json.dumps({**config, **(changes or {})}))
    return configs, run


def execute(run: Path, **options: Any) -> None:
    workflow = ConfigWorkflow(
        config_file=str(run), workflow_type="train", init_id="initialize", run_id="run", final_id=None, **options
    )
    workflow.initialize()
    workflow.run()


def faults_of(run: Path, **options: Any) -> list[str]:
    with pytest.raises(MGCCError) as caught:
        execute(run, **options)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_iterations": 5},
        {"only_in_a_preset": 2},
        {"loss#lambda_dice": 2.0},
        {"nested#stages#0#shared": True},
        {"anything#else": 3},
    ],
)
def test_options_that_exist_pass(options, tmp_path):
    execute(bundle(tmp_path)[1], **options)


@pytest.mark.parametrize(
    "option, told",
    [
        ("max_iteration", "--max_iteration: there is no such option; did you mean 'max_iterations'?"),
        ("only_in_a_preste", "did you mean 'only_in_a_preset'?"),
        ("zzz", "--zzz: there is no such option; leave it out."),
        ("loss#lamda_ce", "--loss#lamda_ce: DiceCELoss has no such argument; did you mean 'lambda_ce'?"),
        ("nested#stages#0#shred", "--nested#stages#0#shred: Dropout has no such argument; did you mean 'shared'?"),
    ],
)
def test_misspelt_option_is_told_with_the_one_that_was_meant(option, told, tmp_path):
    (line,) = faults_of(bundle(tmp_path)[1], **{option: 1})
    assert told.replace("?", "") in line.replace("?", "")


VALUES = {"resume": False, "max_iterations": 10, "seed": 1, "stop": 0, "rate": 0.5, "sides": [8, 8], "on": [True]}
KINDS = dict(resume="switch", max_iterations="integer", seed="integer", stop="integer", rate="number", sides="integers")
KINDS |= dict(on="switches", device="any")


@pytest.mark.parametrize(
    "option",
    [
        {"resume": "false", "max_iterations": 1, "seed": 0, "stop": 0, "rate": 0, "sides": [1], "on": [False, True]},
        {"rate": "$1 / 3", "max_iterations": "@seed", "sides": "$[2, 2]"},
    ],
)
def test_values_of_the_kind_that_the_bundle_has_pass(option, tmp_path):
    _, run = bundle(tmp_path, VALUES, KINDS)
    execute(run, **option)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"resume": "maybe"}, "neither true nor false"),
        ({"max_iterations": 0}, "--max_iterations must be an integer >= 1, got 0."),
        ({"max_iterations": 1e4}, "--max_iterations must be an integer >= 1, got 10000.0."),
        ({"max_iterations": True}, "must be an integer"),
        ({"max_iterations": "ten"}, "--max_iterations must be an integer >= 1, got ten."),
        ({"seed": -1}, "--seed must be an integer >= 0, got -1."),
        ({"stop": -1}, "--stop must be an integer >= 0, got -1."),
        ({"rate": "fast"}, "--rate must be a number >= 0, got fast."),
        ({"rate": -0.1}, "--rate must be a number >= 0, got -0.1."),
        ({"rate": float("nan")}, "--rate must be a number >= 0, got nan."),
        ({"rate": None}, "--rate must be a number >= 0, got None."),
        ({"sides": 8}, "--sides must be a list such as [32, 64], got 8."),
        ({"sides": []}, "must be a list such as"),
        ({"sides": [8, 0]}, "--sides must be an integer >= 1, got 0."),
        ({"on": ["false"]}, "--on must be a list of True and False, with capital letters, got ['false']."),
        ({"device": "cuda:99"}, "--device cuda:99: cannot be used here"),
        ({"device": "gpu"}, "--device gpu: cannot be used here"),
    ],
)
def test_values_of_another_kind_are_told(option, told, tmp_path):
    _, run = bundle(tmp_path, VALUES, KINDS)
    (line,) = faults_of(run, **option)
    assert told in line


READERS = {  # components that read a switch by parse_bool, or compare it with words where clients have only MONAI
    "resume": ["mgcc_monai.runs.RunRecord"],
    "recompute_decoders": ["mgcc_monai.networks.MGCC"],
    "perturbation_shared": ["mgcc_monai.networks.FeatureDropout", "mgcc_monai.networks.FeatureNoise"],
}


def test_every_switch_of_the_bundle_is_read_strictly(configs):
    """A switch of the command line arrives as a word, and any word is true to Python."""
    options = read_options(configs.parent)
    for path in sorted(configs.glob("*.json")):
        text = json.dumps(json.loads(path.read_text()))
        for name in (name for name, option in options.items() if option.kind == "switch"):
            for use in re.finditer(rf"@{name}\b", text):
                before = text[: use.start()]
                target = re.findall(r'"_target_": "([\w.]+)"', before)[-1]
                strict = re.search(r"(parse_bool\(|str\()$", before)
                assert strict or target in READERS.get(name, []), (path.name, name)


def test_every_fault_is_listed(tmp_path):
    heading, *lines = faults_of(bundle(tmp_path)[1], **{"max_iteration": 1, "zzz": 2, "loss#lamda_ce": 3})
    assert heading == "options: 3 faults:" and len(lines) == 3


def test_new_name_that_something_refers_to_passes(tmp_path):
    new = {"learning_speed": 0.5, "loss": {"_target_": "monai.losses.DiceCELoss", "lambda_ce": "@learning_speed"}}
    execute(bundle(tmp_path / "a", new)[1])
    new["loss"]["lambda_ce"] = "$2 * @learning_speed_of_another"
    new["learning_speed_of_another"] = 1
    (line,) = faults_of(bundle(tmp_path / "b", new)[1])
    assert "--learning_speed:" in line


def test_target_that_does_not_exist_is_told(tmp_path):
    (line,) = faults_of(bundle(tmp_path, {"open": {"_target_": "torch.nn.MSELos"}})[1])
    assert "torch.nn.MSELos" in line


def test_outside_of_a_bundle_there_is_nothing_to_check(tmp_path):
    assert active_parser() is None
    check_config(tmp_path)


def test_active_parser_is_the_running_one():
    config = ConfigParser({"imports": ["$import mgcc_monai"], "x": "$mgcc_monai.runs.config.active_parser()"})
    assert config.get_parsed_content("x") is config


def test_shipped_config_passes_its_own_check(configs, tmp_path):
    """Every argument in the bundle's training config exists in the component that it is given to."""
    run = json.loads((configs / "train.json").read_text())
    run["run"] = ["$mgcc_monai.runs.config.check_config(@bundle_root)"]
    run["initialize"] = []
    (tmp_path / "run.json").write_text(json.dumps({**run, "bundle_root": str(configs.parent)}))
    execute(tmp_path / "run.json")
    planted = {"unused": "@seed", "augmentation#0#probs": 1.0, "train#trainer#max_epoch": 3}
    told = "\n".join(faults_of(tmp_path / "run.json", **planted)[1:])
    assert len(told.splitlines()) == len(planted)
    assert all(f"--{name}:" in told for name in planted) and "'prob'" in told and "'max_epochs'" in told


def test_faults_beyond_fifty_are_counted():
    raise_errors([])
    with pytest.raises(MGCCError) as caught:
        raise_errors([f"fault {i}" for i in range(60)], "data")
    lines = str(caught.value).splitlines()
    assert lines[0] == "data: 60 faults:" and len(lines) == 52 and lines[-1].strip() == "... and 10 more"
    with pytest.raises(MGCCError, match="^alone$"):
        raise_errors(["alone"])
