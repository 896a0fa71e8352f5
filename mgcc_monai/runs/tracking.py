"""MLflow: what MONAI's ``--tracking mlflow`` leaves out of a stage's run, and its end."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mgcc_monai.distributed import is_main_process
from mgcc_monai.runs.config import active_parser

__all__ = ["run_name", "track"]

_FIGURES = ("summary.json", "gate.json")
_PICTURES = 20


def track(folder: str | Path, status: str = "FINISHED") -> None:
    """Put a stage's pictures and figures into its MLflow run, and end it.

    It does nothing unless the config was run with ``--tracking mlflow``. A stage that MONAI gives no run, as generating
    images, gets one in the same experiment.

    Args:
        folder: the stage's folder.
        status: FINISHED, FAILED or KILLED.
    """
    parser = active_parser()
    if parser is None or "tracking_uri" not in parser.config or not is_main_process():
        return
    mlflow = importlib.import_module("mlflow")
    client = mlflow.MlflowClient(tracking_uri=parser.get_parsed_content("tracking_uri"))
    name = str(parser.get_parsed_content("experiment_name"))
    experiment = client.get_experiment_by_name(name)
    id = experiment.experiment_id if experiment else client.create_experiment(name)
    own = str(parser.get_parsed_content("run_name"))
    begun = client.search_runs([id], filter_string=f"attributes.run_name = '{own}'", max_results=1)
    run = (begun[0] if begun else client.create_run(id, run_name=own)).info.run_id
    for file in (Path(folder) / figures for figures in _FIGURES):
        if file.is_file():
            for key, value in _numbers(json.loads(file.read_text())):
                client.log_metric(run, key, value)
    for picture in sorted(Path(folder).rglob("*.png"), key=_last)[-_PICTURES:]:
        if picture.parent.name in (Path(folder).name, "previews", "overlays"):
            client.log_artifact(run, str(picture), "pictures")
    client.set_terminated(run, status)


def run_name(stage: str) -> str:
    """Return a name for a stage's MLflow run that no other run has."""
    return f"{stage}_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}"


def _last(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _numbers(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Give the numbers in nested objects, by the names above them; those that are not finite are null in the file."""
    for name, value in content.items():
        key = f"{above}/{name}" if above else name
        if isinstance(value, Mapping):
            yield from _numbers(value, key)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield "".join(c if c.isalnum() or c in "_-./ " else "_" for c in key), float(value)
