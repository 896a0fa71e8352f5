"""Our network, loss, schedules and metrics against figures made with the authors' released code.

``mgcc_reference.json`` and ``mgcc_reference.npz`` were made with
FengheTan9/Multi-Level-Global-Context-Cross-Consistency at a9c8bd3; they hold random numbers and no clinical data.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.metrics import case_metrics
from mgcc_monai.interop.authors import convert, network_arguments, to_mgcc
from mgcc_monai.losses import consistency, consistency_ramp
from mgcc_monai.networks import MGCC, FeatureDropout, FeatureNoise


def reference_entry(name: str, shape: list[int]) -> torch.Tensor:
    """One tensor of the reference network; its values are a function of its name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = rng.normal(0, 0.1, shape)
    elif name.endswith("bias"):
        values = rng.normal(0, 0.05, shape)
    elif len(shape) == 1:
        values = rng.uniform(0.8, 1.2, shape)
    else:
        values = rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def load_merged(parser: ConfigParser, configs: Any, *files: str) -> None:
    for file in ("train.json", *files):
        for key, value in ConfigParser.load_config_file(str(configs / file)).items():
            parser[key] = value


@pytest.fixture(scope="module")
def authors_state(figures: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: reference_entry(name, shape) for name, shape in figures["network"]["state_dict"]}


@pytest.fixture(scope="module")
def network(authors_state: Mapping[str, torch.Tensor]) -> MGCC:
    ours = to_mgcc(authors_state)
    network = MGCC(**network_arguments(ours))
    network.load_state_dict(ours, strict=True)
    return network


@pytest.fixture
def config(configs: Any) -> ConfigParser:
    """The shipped training config, for one class."""
    parser = ConfigParser()
    load_merged(parser, configs)
    parser["out_channels"] = 1
    return parser


def test_stored_reference_is_the_shared_one(shared, figures, arrays):
    folder = shared("reference")
    assert json.loads((folder / "authors_network.json").read_text()) == figures
    original = np.load(folder / "authors_network.npz")
    assert sorted(original.files) == sorted(arrays)
    for name in original.files:
        assert np.array_equal(original[name], arrays[name].numpy()), name


def test_logits_in_evaluation(network, arrays):
    network.eval()
    with torch.no_grad():
        logits = network(arrays["image"])
    torch.testing.assert_close(logits, arrays["logits_eval"], rtol=0, atol=1e-5)


def test_main_logits_in_training(authors_state, arrays):
    """Batch statistics over few values magnify rounding: the figures of single precision lie 1.3e-4 off the exact ones.

    So ours are computed in double precision, where what remains is the rounding of the authors' run alone.
    """
    ours = to_mgcc(authors_state)
    network = MGCC(**network_arguments(ours))
    network.load_state_dict(ours)
    network.train().double()
    with torch.no_grad():
        main, *auxiliary = network(arrays["image"].double())
    assert len(auxiliary) == 3
    difference = (main - arrays["logits_train_main"]).abs()
    assert difference.max() < 2e-4
    assert difference.mean() < 2e-5


@pytest.mark.parametrize("prefix, wrap", [("", False), ("module.", False), ("", True)])
def test_converted_file_gives_the_same_logits(prefix, wrap, authors_state, arrays, tmp_path):
    state = {prefix + name: tensor for name, tensor in authors_state.items()}
    torch.save({"state_dict": state} if wrap else state, tmp_path / "model.pth")
    arguments = convert(str(tmp_path / "model.pth"), str(tmp_path / "models" / "model.pt"))
    assert arguments == {
        "in_channels": 3,
        "out_channels": 1,
        "channels": [16, 32, 64, 128, 256],
        "mixer_depths": [3, 3, 3],
        "mixer_kernel_size": 7,
    }
    network = MGCC(**arguments)
    network.load_state_dict(torch.load(tmp_path / "models" / "model.pt", weights_only=True), strict=True)
    with torch.no_grad():
        logits = network.eval()(arrays["image"])
    torch.testing.assert_close(logits, arrays["logits_eval"], rtol=0, atol=1e-5)


def test_swapped_auxiliary_decoders_are_noticed(authors_state):
    """Each of the authors' decoders keeps its place: number one is the one before the first ConvMixer."""
    ours = to_mgcc(authors_state)
    for number in (1, 2, 3):
        theirs = authors_state[f"aux_decoder{number}.Conv_1x1.weight"]
        assert torch.equal(ours[f"auxiliary_decoders.{number - 1}.head.weight"], theirs)
        assert torch.equal(
            ours[f"mixers.{number - 1}.2.pointwise.0.weight"], authors_state[f"ConvMixer{number}.block.2.1.weight"]
        )


def test_another_network_is_refused(authors_state, tmp_path):
    with pytest.raises(MGCCError, match=r"'backbone\.conv\.weight' is no entry"):
        to_mgcc({**authors_state, "backbone.conv.weight": torch.zeros(1)})
    reduced = {name: tensor for name, tensor in authors_state.items() if not name.startswith("aux_decoder3")}
    torch.save(reduced, tmp_path / "model.pth")
    missing = len(authors_state) - len(reduced)
    with pytest.raises(MGCCError, match=rf"{missing} entries do not fit .*auxiliary_decoders\.2\."):
        convert(str(tmp_path / "model.pth"), str(tmp_path / "model.pt"))
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    "channels, total, inference",
    [((64, 128, 256, 512, 1024), 122_182_980, 52_142_145), ((16, 32, 64, 128, 256), 7_749_204, 3_360_273)],
)
def test_parameter_counts(channels, total, inference, figures):
    with torch.device("meta"):
        network = MGCC(in_channels=3, out_channels=1, channels=channels)
    theirs = next(parts for parts in figures["params"].values() if parts["total"] == total)
    counts: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        part, _, rest = name.partition(".")
        number = int(rest.split(".")[0]) + 1 if rest.split(".")[0].isdigit() else 0
        label = {"encoder": f"Conv{number}", "mixers": f"ConvMixer{number}"}.get(part, part)
        counts[f"aux_decoder{number}" if part == "auxiliary_decoders" else label] += parameter.numel()
    counts["total"] = sum(counts.values())
    assert dict(counts) == theirs
    unused = sum(count for name, count in counts.items() if name.startswith("aux_decoder"))
    assert counts["total"] - unused == inference


def test_shipped_network_differs_from_the_published_one_in_its_input_alone(config, figures):
    config["device"] = torch.device("cpu")
    with torch.device("meta"):
        network = config.get_parsed_content("network_def")
    first = network.encoder[0][0]
    assert first.in_channels == 1
    missing_inputs = 2 * first.out_channels * 9
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == figures["params"]["paper dim_mult=4"]["total"] - missing_inputs


def test_perturbations(arrays):
    feature = arrays["feature"]
    erased = FeatureDropout()(feature, torch.full((1, 1, 1, 1), 0.8))
    torch.testing.assert_close(erased, arrays["feature_dropout_u08"], rtol=0, atol=1e-6)
    noisy = FeatureNoise()(feature, arrays["noise"][None])
    torch.testing.assert_close(noisy, arrays["feature_noise"], rtol=0, atol=1e-6)


def test_supervised_loss_of_the_shipped_config(config, figures, arrays):
    loss = config.get_parsed_content("loss#supervised")
    value = float(loss(arrays["loss_logits"], arrays["loss_target"]))
    assert figures["loss"]["bce_dice"] == 1.020060658454895
    assert value == pytest.approx(1.020060658454895, abs=1e-6)


def test_consistency(figures, arrays):
    auxiliary = [arrays[f"aux_logits_{i}"] for i in range(3)]
    value = float(consistency(arrays["loss_logits"], auxiliary))
    assert figures["loss"]["consistency_mse"] == 0.08627812198252277
    assert value == pytest.approx(0.08627812198252277, abs=1e-6)


def test_consistency_ramp_of_the_authors(figures):
    settings = {"max_iterations": 20000, "weight": 7.0, "ramp_fraction": 30000 / 20000, "stair": 150}
    assert len(figures["consistency_weight"]) == 9
    for iteration, weight in figures["consistency_weight"]:
        assert consistency_ramp(iteration + 1, **settings) == pytest.approx(weight, abs=1e-6), iteration


def test_consistency_ramp_of_the_authors_preset(configs, figures):
    """The preset, as it is shipped, gives the authors' weights where training reaches them."""
    parser = ConfigParser()
    load_merged(parser, configs, "presets/authors_release.yaml")
    handler = next(h for h in parser["train"]["handlers"] if h["_target_"].endswith("ParamSchedulerHandler"))
    settings = {name: parser.get_parsed_content(value[1:]) for name, value in handler["vc_kwargs"].items()}
    for iteration, weight in figures["consistency_weight"]:
        assert consistency_ramp(iteration + 1, **settings) == pytest.approx(weight, abs=1e-6), iteration


def test_learning_rate_of_the_shipped_config(config, figures):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.get_parsed_content("learning_rate"))
    config["optimizer"] = optimizer
    scheduler = config.get_parsed_content("lr_scheduler")
    wanted = dict(figures["poly_lr"])
    rates = {}
    optimizer.step()
    for iteration in range(20006):  # beyond the end, where the authors' formula turns complex
        rates[iteration] = optimizer.param_groups[0]["lr"]
        scheduler.step()
    assert sorted(wanted) == [0, 1, 5000, 10000, 19999]
    for iteration, rate in wanted.items():
        assert rates[iteration] == pytest.approx(rate, rel=1e-6), iteration
    assert all(rates[iteration] == 0 for iteration in range(20000, 20006))


def test_metrics(figures, arrays):
    """They differ by the authors' smoothing (1e-5 in numerator and denominator, on 86 and 41 pixels) alone."""
    pred = torch.sigmoid(arrays["loss_logits"][0, 0]).numpy() >= 0.5
    ours = case_metrics(pred, arrays["loss_target"][0, 0].numpy() >= 0.5)
    theirs = figures["metrics"]
    names = {"iou": "iou", "dice": "dice", "recall": "sensitivity", "precision": "precision", "f1": "f1"}
    for name, their_name in {**names, "accuracy": "accuracy"}.items():
        assert ours[name] == pytest.approx(theirs[their_name], abs=1e-6), name
