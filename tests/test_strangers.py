"""What a stranger adds: each is one file outside the package, and at most one overlay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mgcc_monai.data import checks
from mgcc_monai.data.checks import report

PERTURBATION = """
from mgcc_monai.networks import Perturbation


class Fade(Perturbation):
    def draw(self, x):
        return self._uniform(x, (1, 1, 1), 0.5, 1.0)

    def apply_draw(self, x, draw):
        return x * draw
"""

METHOD = '''
import torch

from mgcc_monai.data import checks
from mgcc_monai.data.checks import report
from monai.inferers import SimpleInferer


class TwoViews(SimpleInferer):
    """Consistency between an image and its mirror image."""

    def __call__(self, inputs, network, *args, **kwargs):
        plain, mirrored = network(inputs), network(inputs.flip(-1))
        return [plain[0], mirrored[0].flip(-1)]
'''

METRIC = """
from monai.handlers import IgniteMetricHandler
from monai.metrics import HausdorffDistanceMetric


class Hausdorff(IgniteMetricHandler):
    def __init__(self, output_transform):
        super().__init__(metric_fn=HausdorffDistanceMetric(include_background=True), output_transform=output_transform)
"""


@pytest.fixture
def train(run: Callable, bundle: Path, phantoms: Path, tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """``train(code, overlay)``: a training with a module ``stranger`` and an overlay, and its folder."""

    def start(code: str, overlay: dict) -> Path:
        (tmp_path / "stranger.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(__import__("sys").modules, "stranger", raising=False)
        (tmp_path / "stranger.json").write_text(json.dumps(overlay))
        run("training", "train.json", str(tmp_path / "stranger.json"), dataset_dir=str(phantoms))
        return tmp_path / "runs" / "segmentation"

    return start


def test_a_perturbation(train, run, phantoms: Path, tmp_path: Path):
    """Chosen by the overlay; the weights then serve without the stranger's file."""
    pair = [{"_target_": "stranger.Fade"}, {"_target_": "mgcc_monai.networks.FeatureNoise", "amplitude": 0.2}]
    folder = train(PERTURBATION, {"perturbations": pair})
    weights = torch.load(folder / "model.pt", weights_only=True)
    assert len({name.split(".")[1] for name in weights if name.startswith("auxiliary_decoders.")}) == 2
    (tmp_path / "stranger.py").unlink()
    assert "stranger" not in (folder / "inference.json").read_text()
    run("inferring", str(folder / "inference.json"), dataset_dir=str(phantoms), output_dir=str(tmp_path / "masks"))
    assert (tmp_path / "masks" / "lesions.csv").is_file()


def test_a_method(train):
    """An inferer of the stranger's, two outputs of which the first is supervised."""
    overlay = {
        "method": "two_views",
        "perturbations": [],
        "supervised_outputs": 1,
        "train_inferer": {"_target_": "stranger.TwoViews"},
    }
    folder = train(METHOD, overlay)
    assert json.loads((folder / "run.json").read_text())["method"] == "two_views"
    assert "consistency" in (folder / "training.log").read_text()


def test_a_metric(train):
    pair = "$monai.handlers.from_engine(['pred', 'label'])"
    overlay = {"+validate#additional_metrics": {"val_hd": {"_target_": "stranger.Hausdorff", "output_transform": pair}}}
    folder = train(METRIC, overlay)
    assert "val_hd" in (folder / "training.log").read_text()


def test_a_check(phantoms: Path, monkeypatch: pytest.MonkeyPatch):
    """It is run, counted and told like those of the package."""
    before = list(report.CHECKS)
    monkeypatch.setattr(report, "CHECKS", [*before])
    monkeypatch.setattr(report, "_REGISTERED", {name: [] for name in report._REGISTERED})
    wide = checks.Check("wide", "warning", "the sides", lambda facts: "wider than high", "crop it")
    lists = checks.Check("few", "fault", "the lists", lambda data: [(data.file, "too few images")], "add some")
    checks.register(wide), checks.register(lists, "dataset")
    found = checks.check_dataset(phantoms)
    assert found.counts["wide"] == found.images > 10 and [fault.check for fault in found.faults] == ["few"]
    assert found.faults[0].line.endswith("too few images; add some") and "wide" in found.table()
    with pytest.raises(ValueError, match="new name"):
        checks.register(wide)
