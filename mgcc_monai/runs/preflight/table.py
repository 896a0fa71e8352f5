"""What is checked before each workflow, in order: one table, read by the run lists of the configs and by ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from mgcc_monai.generation.sample import check_request
from mgcc_monai.runs.config import active_parser, using
from mgcc_monai.runs.preflight import generation, leftovers, resume, segmentation, shapes, weights
from mgcc_monai.runs.preflight.client import check_client_lists

__all__ = ["DATA", "OPTIONS", "RUN", "WORKFLOWS", "Check", "check", "evaluate_checks"]

OPTIONS, DATA, RUN = "options", "data", "run"


class Check(NamedTuple):
    """A check of a workflow: when ``fit`` can make it in advance, its function, and the ids of its arguments.

    An id that ends in ``?`` is the empty text where the config has none, as those of older versions.
    """

    needs: str
    function: Callable[..., Any]
    ids: Sequence[str]


def _options(needs: str = OPTIONS) -> Check:
    return Check(needs, segmentation.check_bundle_root, ["bundle_root"])


def _output(folder: str) -> Check:
    return Check(RUN, segmentation.check_output, [folder])


_RESUME = Check(RUN, resume.check_resume, ["record"])
_ASPECT = Check(OPTIONS, shapes.check_aspect, ["image_size"])
_GATE = Check(DATA, generation.check_gate, ["datalist", "images#training#data", "images#held_out#data"])
_GENERATOR = Check(RUN, generation.check_generator, ["diffusion_dir", "model_run", "datalist", "image_size"])
_STEP = ["image_size", "batch_size", "unlabeled_batch_size", "consistency_weight"]
_STREAM = "train#unlabeled_dataset#data"
_REQUEST = [
    *("pipeline", "num_images", "indices", "seed", "class_proportions", "class_labels", "generation_batch_size"),
    *("num_inference_steps", "guidance_scale", "inference_scheduler"),
]
_OUTPUTS = ["output_dir", "output_ext", "output_postfix", "separate_folder", "save_prob", "save_overlay", "overwrite"]

WORKFLOWS: dict[str, list[Check]] = {
    "train_autoencoder": [
        _options(),
        _output("autoencoder_dir"),
        Check(
            OPTIONS,
            shapes.check_autoencoder_shape,
            ["image_size", "autoencoder_patch_size", "autoencoder_pixel_unshuffle", "autoencoder_channels"],
        ),
        _ASPECT,
        Check(DATA, generation.check_generator_data, ["datalist", "train#dataset#data", "autoencoder_batch_size"]),
        _RESUME,
        Check(DATA, segmentation.check_data, ["datalist", "train#dataset#data", "output_dir"]),
    ],
    "train_diffusion": [
        _options(),
        _output("diffusion_dir"),
        _ASPECT,
        Check(
            OPTIONS,
            shapes.check_denoiser_shape,
            ["image_size", "autoencoder_dir", "diffusion_channels", "diffusion_attention", "num_inference_steps"],
        ),
        Check(DATA, generation.check_generator_data, ["datalist", "images#dataset#data", "diffusion_batch_size"]),
        Check(DATA, generation.check_classes, ["classes", "class_proportions"]),
        _RESUME,
        Check(RUN, generation.check_autoencoder, ["autoencoder_dir", "datalist", "image_size", "record"]),
        Check(DATA, segmentation.check_data, ["datalist", "images#dataset#data", "output_dir"]),
    ],
    "generate": [_options(), _output("generated_dir"), _GENERATOR, _GATE, Check(DATA, check_request, _REQUEST)],
    "evaluate_generation": [_options(), _output("generated_dir"), _GENERATOR, _GATE],
    "train": [
        _options(),
        Check(RUN, check_client_lists, []),
        _output("segmentation_dir"),
        Check(OPTIONS, shapes.check_segmenter_shape, ["image_size", "channels"]),
        _ASPECT,
        Check(OPTIONS, shapes.check_segmenter_step, _STEP),
        Check(DATA, segmentation.check_training, ["datalist", _STREAM, *_STEP[1:]]),
        Check(DATA, weights.check_weights, ["network", "pretrained"]),
        _RESUME,
        Check(DATA, segmentation.check_data, ["datalist", _STREAM, "output_dir"]),
    ],
    "evaluate": [
        _options(),
        _output("evaluation_dir"),
        Check(
            DATA,
            segmentation.check_evaluation,
            ["datalist", "validate#dataset#data", "evaluate_list", "run_header", "threshold"],
        ),
        Check(DATA, weights.check_weights, ["network", "ckpt_path", "ckpt_sha256?"]),
    ],
    "infer": [
        Check(OPTIONS, segmentation.check_standalone, ["bundle_root"]),
        _output("output_dir"),
        Check(OPTIONS, shapes.check_segmenter_shape, ["image_size", "network_def#channels"]),
        _ASPECT,
        Check(DATA, segmentation.check_inference, ["datalist", "dataset_dir", "output_dir", "crop"]),
        Check(DATA, weights.check_weights, ["network", "ckpt_path", "ckpt_sha256?"]),
    ],
    "leftovers": [Check(RUN, leftovers.check_leftovers, ["datalist", *_OUTPUTS])],
}


def check(workflow: str) -> None:
    """Make all checks of a workflow on the config that is being run, which calls this first.

    Args:
        workflow: a name in ``WORKFLOWS``.

    Raises:
        MGCCError: what the first check that refuses something says.
    """
    evaluate_checks(active_parser(), WORKFLOWS[workflow])


def evaluate_checks(parser: ConfigParser, checks: Sequence[Check]) -> None:
    """Make checks on a config.

    Args:
        parser: of the config, for the arguments.
        checks: in order; each sees only what its own arguments need to be built.
    """
    with using(parser):
        for one in checks:
            one.function(*(_argument(parser, id) for id in one.ids))


def _argument(parser: ConfigParser, id: str) -> Any:
    if id.endswith("?") and id[:-1] not in parser:
        return ""
    return parser.get_parsed_content(id.removesuffix("?"))
