"""Federated averaging of the segmenter with MONAI's ``MonaiAlgo``: sites keep their images, and share weights alone.

    python examples/federated/two_sites.py --bundle PATH/TO/ultrasound_mgcc_segmentation \
        --site_a data/a --site_b data/b --output runs/federated --rounds 5

Each site is a prepared dataset. In round 0 the sites agree on the mean and standard deviation for normalisation, each
site weighted by its number of images. In every round each site trains from the global weights, and the server averages,
weighted by labelled images. The validation list of each site measures the result. Here both sites run in one process;
under NVFlare each runs its own ``MonaiAlgo`` with the same options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import fire
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from mgcc_monai.data import load_datalist


def agreed_statistics(datasets: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean and standard deviation over the images of all sites.

    Args:
        datasets: as :func:`mgcc_monai.data.load_datalist` returns them; ``statistics`` weigh each image alike.
    """
    counts = [len(dataset["training"]) + len(dataset["unlabeled"]) for dataset in datasets]
    parts = [dataset["statistics"] for dataset in datasets]
    mean = sum(n * part["mean"] for n, part in zip(counts, parts)) / sum(counts)
    square = sum(n * (part["std"] ** 2 + part["mean"] ** 2) for n, part in zip(counts, parts)) / sum(counts)
    return {"image_mean": mean, "image_std": sqrt(square - mean**2)}


def average(states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return the weighted mean of some state dicts; counters of batches, which are integers, are those of the first."""
    shares = [weight / sum(weights) for weight in weights]
    return {
        name: sum(share * state[name] for share, state in zip(shares, states)) if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def start_site(name: str, bundle: Path, dataset: str, output: Path, options: Mapping[str, Any]) -> MonaiAlgo:
    """Return an initialised client."""
    places = {"dataset_dir": dataset, "output_dir": str(output / name), "models_dir": str(output / name / "models")}
    options = {**places, "generated_fraction": 0, **options}
    algo = MonaiAlgo(
        bundle_root=str(bundle),
        local_epochs=1,
        send_weight_diff=False,
        train_kwargs=dict(options),
        eval_kwargs={**options, "evaluate_list": "validation"},
    )
    algo.initialize({ExtraItems.CLIENT_NAME: name})
    return algo


def main(
    bundle: str, site_a: str, site_b: str, output: str = "runs/federated", rounds: int = 5, **options: Any
) -> None:
    """Train over two sites and write ``OUTPUT/model.pt`` and ``OUTPUT/rounds.json``.

    Args:
        bundle: a packed bundle, unpacked; its weights are where training starts.
        site_a: prepared dataset of the first site.
        site_b: prepared dataset of the second.
        output: folder of the results.
        rounds: how often weights are exchanged.
        options: of the training, such as ``max_iterations`` or ``learning_rate``.
    """
    root, folder = Path(bundle).absolute(), Path(output).absolute()
    datasets = {"a": site_a, "b": site_b}
    lists = [load_datalist(path) for path in datasets.values()]
    options |= agreed_statistics(lists)
    print(f"round 0: mean {options['image_mean']:.4f}, standard deviation {options['image_std']:.4f}")
    sites = [start_site(name, root, path, folder, options) for name, path in datasets.items()]
    weights = torch.load(root / "models" / "model.pt", weights_only=True, map_location="cpu")
    labelled = [len(dataset["training"]) for dataset in lists]
    history = []
    for number in range(1, int(rounds) + 1):
        states = []
        for site in sites:
            site.train(ExchangeObject(weights=weights))
            states.append(site.get_weights().weights)
        weights = average(states, labelled)
        metrics = [site.evaluate(ExchangeObject(weights=weights)).metrics for site in sites]
        history.append({"round": number, "sites": dict(zip(datasets, metrics))})
        print(f"round {number}: " + ", ".join(f"site {n} Dice {m['dice']:.4f}" for n, m in zip(datasets, metrics)))
    for site in sites:
        site.finalize()
    torch.save(weights, folder / "model.pt")
    (folder / "rounds.json").write_text(json.dumps(history, indent=2) + "\n")


if __name__ == "__main__":
    fire.Fire(main)
