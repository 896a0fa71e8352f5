"""What MONAI, the Model Zoo's checks and other clients expect of the bundle's files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from pydoc import locate
from typing import Any

import jsonschema
import monai.bundle
import pytest
import torch
import yaml
from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow

import mgcc_monai
from mgcc_monai.networks import MGCC
from mgcc_monai.runs.options import read_options, wrong_value

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
TINY = Path(__file__).with_name("tiny.yaml")
JSON_FILES = sorted(CONFIGS.glob("*.json"))
OVERLAYS = sorted([*CONFIGS.glob("presets/*.yaml"), *CONFIGS.glob("methods/*.yaml")])
GENERATOR = ("train_diffusion.json", "generate.json")
REQUIRED = (
    "schema version monai_version pytorch_version numpy_version required_packages_version task description authors "
    "copyright network_data_format changelog"
).split()


def parser(*files: Path) -> ConfigParser:
    """The merged config of some files."""
    merged = ConfigParser()
    merged.read_config([str(file) for file in files])
    return merged


@pytest.mark.parametrize(
    ("names", "kind"),
    [(["train.json"], "train"), (["train.json", "evaluate.json"], "train"), (["inference.json"], "infer")],
)
def test_no_property_is_missing_or_wrong(names: list[str], kind: str, phantoms: Path, bundle: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / name) for name in names],
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(phantoms),
        output_dir=str(bundle.parent / "runs"),
        **({} if "evaluate.json" in names else {"image_size": [32, 32]}),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def chain(config: Any, left_out: tuple[str, ...] = ()) -> list[Any]:
    """What transforms do with an image, whatever their other keys."""
    found = []
    for transform in config:
        if isinstance(transform, str):
            found.append(transform)
        elif transform["_target_"] not in left_out and transform["keys"] != "label":
            own = {k: v for k, v in transform.items() if k not in ("keys", "allow_missing_keys", "minv", "maxv")}
            reader = own.get("reader")
            found.append({**own, **({"reader": reader["_target_"]} if isinstance(reader, dict) else {})})
    return found


def test_train_and_inference_agree_on_what_they_repeat() -> None:
    train, inference = parser(CONFIGS / "train.json"), parser(CONFIGS / "inference.json")
    for name in ("image_size", "resize", "pad_value"):
        assert train[name] == inference[name]
    networks = []
    for config in (train, inference):
        torch.manual_seed(0)
        config["network_def"]["channels"] = [2, 4, 6, 8, 10]
        networks.append(config.get_parsed_content("network_def"))
    assert repr(networks[0]) == repr(networks[1])
    wanted = chain(inference["preprocessing"]["transforms"])
    assert len(wanted) == 5 and chain(train["train"]["preprocessing_transforms"]) == wanted


def test_both_stages_read_an_image_alike_but_for_range_and_layout() -> None:
    left_out = ("AsDiscreted", "NormalizeIntensityd", "Transposed", "EnsureTyped")  # labels; range and layout
    names = ("train.json", "train_autoencoder.json", *GENERATOR)
    train, autoencoder, *generator = (json.loads((CONFIGS / name).read_text()) for name in names)
    wanted = chain(train["train"]["preprocessing_transforms"], left_out)
    assert len(wanted) == 4 and train["resize"] == autoencoder["resize"] == generator[0]["resize"]
    assert chain(autoencoder["train"]["preprocessing_transforms"], left_out) == wanted
    assert all(chain(config["images"]["transforms"], left_out) == wanted for config in generator)
    assert all(config["pad_value"] == -1 for config in (autoencoder, *generator))


def test_only_the_network_the_reader_and_the_writer_of_inference_are_ours_among_what_clients_read() -> None:
    config = parser(CONFIGS / "inference.json")
    for name in ("preprocessing", "postprocessing", "inferer"):
        targets = re.findall(r"'_target_': '([\w.]+)'", str(config[name]))
        ours = {target for target in targets if target.startswith("mgcc_monai")}
        assert targets and ours <= {"mgcc_monai.data.UltrasoundReader", "mgcc_monai.data.mask_writer"}


@pytest.mark.parametrize("path", JSON_FILES, ids=lambda path: path.name)
def test_json_is_formatted_and_names_only_allowed_targets(path: Path) -> None:
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=4) + "\n"
    for target in re.findall(r'"_target_": "([^"]+)"', text):
        if "." in target:
            assert target.split(".")[0] in ("monai", "torch", "ignite", "diffusers", "mgcc_monai")
            assert locate(target) is not None, target
        else:
            assert ComponentLocator().get_component_module_name(target), target


@pytest.mark.parametrize(("name", "lines", "count"), [("train.json", 400, 45), ("evaluate_generation.json", 15, 5)])
def test_a_config_can_be_read_in_one_sitting(name: str, lines: int, count: int) -> None:
    text = (CONFIGS / name).read_text()
    assert len(text.splitlines()) <= lines and text.count('"$') <= count


@pytest.mark.parametrize("path", JSON_FILES, ids=lambda path: path.name)
def test_an_expression_does_one_thing(path: Path) -> None:
    assert not [text for text in re.findall(r'"([$][^"]*)"', path.read_text()) if len(text) > 120]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_overlays_set_top_level_names_that_some_workflow_uses(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    used = set().union(*(json.loads(file.read_text()) for file in JSON_FILES))
    assert content and not [name for name in content if "#" in name or "::" in name or name not in used]
    if path.parent.name == "methods":
        assert len([line for line in path.read_text().splitlines() if line and not line.startswith("#")]) <= 10
        assert content["method"] == path.stem
    elif path.stem != "keep_aspect":  # which goes with any other
        assert content["preset"] == path.stem


def test_options_lists_exactly_the_top_level_names() -> None:
    options = read_options(CONFIGS.parent)
    files = [json.loads(path.read_text()) for path in JSON_FILES if path.name != "metadata.json"]
    assert set(options) == {name for content in files for name in content if "#" not in name}
    assert all(option.meaning.endswith(".") for option in options.values())


def test_options_have_the_defaults_of_the_configs() -> None:
    """Of plain values; what an expression works out is described in words."""
    looked = 0
    for name, option in read_options(CONFIGS.parent).items():
        values = [content[name] for content in map(json.loads, map(Path.read_text, JSON_FILES)) if name in content]
        plain = [value for value in values if not (isinstance(value, str) and value[:1] in "$@%" and value)]
        if option.kind == "part" or name in ("pad_value", "class_proportions", "threshold", "image_mean", "image_std"):
            continue  # of several workflows
        if plain:
            assert option.default == plain[0], name
            assert wrong_value(name, option.default, option) == "", name
            looked += 1
        else:
            assert isinstance(option.default, str), name
    assert looked > 60


def test_network_takes_and_gives_what_the_metadata_says() -> None:
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        n=2,
        **{"network_def#channels": [2, 4, 6, 8, 10]},
    )


def test_metadata_has_what_the_zoo_requires(tmp_path: Path) -> None:
    content = json.loads((CONFIGS / "metadata.json").read_text())
    tensor = {"type": "object", "required": "type format num_channels spatial_shape dtype value_range".split()}
    schema = {
        "type": "object",
        "required": REQUIRED,
        "properties": {
            "version": {"const": mgcc_monai.__version__},
            "changelog": {"required": [mgcc_monai.__version__]},
            "network_data_format": {
                "properties": {
                    "inputs": {"required": ["image"], "additionalProperties": tensor},
                    "outputs": {"required": ["pred"], "additionalProperties": tensor},
                }
            },
        },
    }
    jsonschema.validate(content, schema)
    assert content["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "lesion"}
    assert (CONFIGS.parent / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_required_versions_are_those_that_were_tested() -> None:
    content = json.loads((CONFIGS / "metadata.json").read_text())
    pins = dict(
        re.match(r"([\w.-]+)==([\w.]+)", line).groups()
        for line in (CONFIGS.parents[1] / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    pins = {name.lower(): version for name, version in pins.items()}
    wanted = {**content["required_packages_version"], "monai": content["monai_version"]}
    wanted |= {"torch": content["pytorch_version"], "numpy": content["numpy_version"]}
    assert {name.lower(): version for name, version in wanted.items()} == {
        name.lower(): pins[name.lower()] for name in wanted
    }


def test_exported_torchscript_equals_the_network(tmp_path: Path) -> None:
    network = MGCC(1, 1, (2, 4, 6, 8, 10)).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=[str(CONFIGS / "inference.json")],
        **{"network_def#channels": [2, 4, 6, 8, 10]},
    )
    image = torch.randn(2, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    exported = torch.jit.load(str(tmp_path / "model.ts"))
    with torch.no_grad():
        assert torch.allclose(exported(image), network(image), atol=1e-5, rtol=0)
    files = {"metadata.json": "", "inference.json": ""}
    torch.jit.load(str(tmp_path / "model.ts"), _extra_files=files)
    assert all(json.loads(content) for content in files.values())
