"""A MONAI Deploy application: a DICOM ultrasound series in, a DICOM segmentation (SEG) out.

    pip install monai-deploy-app-sdk 'mgcc_monai[dicom]'
    export HOLOSCAN_INPUT_PATH=dicom HOLOSCAN_OUTPUT_PATH=out
    python examples/deploy/app.py PATH/TO/ultrasound_mgcc_segmentation

The operators of the SDK read and write DICOM. The one here segments: it takes the frames as the SDK stacks them and
applies the preprocessing, network, threshold and resizing of the packed bundle's ``inference.json``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, SaveImaged


class Segmenter:
    """The bundle's steps between reading and writing, for arrays.

    Args:
        bundle: the folder of a packed bundle.
    """

    def __init__(self, bundle: str | Path) -> None:
        root = Path(bundle).absolute()
        sys.path.insert(0, str(root))
        parser = ConfigParser()
        parser.read_config(str(root / "configs" / "inference.json"))
        parser.update({"bundle_root": str(root), "device": "cpu"})
        self.network = parser.get_parsed_content("network_def").eval()
        weights = torch.load(root / "models" / "model.pt", weights_only=True, map_location="cpu")
        self.network.load_state_dict(weights)
        self.inferer = parser.get_parsed_content("inferer")
        steps = parser.get_parsed_content("preprocessing").transforms
        self.before = Compose([step for step in steps if not isinstance(step, LoadImaged)])
        parser["preprocessing"] = self.before
        after = parser.get_parsed_content("postprocessing").transforms
        self.after = Compose([step for step in after if not isinstance(step, SaveImaged)])
        for step in self.after.transforms:
            if hasattr(step, "transform"):  # Invertd, which undoes the steps above
                step.transform = self.before

    @torch.no_grad()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Segment one frame.

        Args:
            frame: HW, or HWC of colours.

        Returns:
            uint8 HW, 1 is lesion.
        """
        grey = frame if frame.ndim == 2 else np.rint(frame[..., :3] @ [0.299, 0.587, 0.114])
        image = MetaTensor(torch.as_tensor(np.ascontiguousarray(grey.T), dtype=torch.float32))  # x first
        image.meta["original_channel_dim"] = float("nan")
        data = self.before({"image": image})
        data["pred"] = self.inferer(data["image"][None], self.network)[0]
        return np.asarray(self.after(data)["pred"]).T.astype(np.uint8)

    def volume(self, frames: np.ndarray) -> np.ndarray:
        """Segment a series.

        Args:
            frames: as the SDK's operators give them: HW, or frames first: NHW or NHWC.

        Returns:
            uint8 NHW.
        """
        if frames.ndim == 2:
            frames = frames[None]
        return np.stack([self(frame) for frame in frames])


def build(bundle: str) -> Any:
    """Return the application; the SDK is imported here alone, so that :class:`Segmenter` works without it."""
    from monai.deploy.conditions import CountCondition
    from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec
    from monai.deploy.core.domain import Image
    from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
    from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
    from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
    from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
    from pydicom.sr.codedict import codes

    class SegmentOperator(Operator):
        def __init__(self, fragment: Fragment, *args: Any, **kwargs: Any) -> None:
            self.segment = Segmenter(bundle)
            super().__init__(fragment, *args, **kwargs)

        def setup(self, spec: OperatorSpec) -> None:
            spec.input("image")
            spec.output("seg_image")

        def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
            image = op_input.receive("image")
            op_output.emit(Image(self.segment.volume(image.asnumpy()), image.metadata()), "seg_image")

    class LesionApplication(Application):
        def compose(self) -> None:
            context: AppContext = Application.init_app_context([])
            lesion = SegmentDescription(
                segment_label="Lesion",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lesion,
                algorithm_name="mgcc_monai",
                algorithm_version="0.2.0",
            )
            once = CountCondition(self, 1)
            load = DICOMDataLoaderOperator(self, once, input_folder=Path(context.input_path), name="load")
            select = DICOMSeriesSelectorOperator(self, name="select")
            volume = DICOMSeriesToVolumeOperator(self, name="volume")
            segment = SegmentOperator(self, name="segment")
            write = DICOMSegmentationWriterOperator(
                self, segment_descriptions=[lesion], output_folder=Path(context.output_path), name="write"
            )
            self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
            self.add_flow(select, volume, {("study_selected_series_list", "study_selected_series_list")})
            self.add_flow(volume, segment, {("image", "image")})
            self.add_flow(select, write, {("study_selected_series_list", "study_selected_series_list")})
            self.add_flow(segment, write, {("seg_image", "seg_image")})

    return LesionApplication()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("give the folder of a packed bundle: python examples/deploy/app.py FOLDER")
    build(sys.argv[1]).run()
