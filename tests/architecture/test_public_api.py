"""The names that users write. A change here is a change for them: put it in the CHANGELOG."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import voxplain

TOP = [
    "Attribution",
    "Compute",
    "Explanation",
    "Grid",
    "LabelMap",
    "Volume",
    "estimate",
    "explain",
    "importance",
    "load_model",
    "predict",
    "read_image",
    "read_labels",
    "to_metatensor",
    "wrap",
    "write_report",
]
COUNTERFACTUAL = [
    "Applied",
    "Config",
    "Run",
    "apply_image",
    "evaluate_runs",
    "open_run",
    "read_config",
    "train_run",
]
ATTRIBUTION = [
    "METHODS",
    "PRESETS",
    "XRAI",
    "Ablation",
    "BlurIG",
    "Blurred",
    "ClassTarget",
    "Constant",
    "Deconvnet",
    "DeepLift",
    "Difference",
    "Estimate",
    "Everywhere",
    "ExpectedGradients",
    "FunctionTarget",
    "GivenImage",
    "GradCam",
    "GradCamPlusPlus",
    "Gradient",
    "GradientMax",
    "GradientQuantile",
    "GuidedBackprop",
    "GuidedGradCam",
    "GuidedIG",
    "HiResCam",
    "Inpainted",
    "InputXGradient",
    "Instance",
    "IntegratedGradients",
    "LayerCam",
    "LearnedInpainting",
    "Mask",
    "MeanImage",
    "NoiseFill",
    "Occlusion",
    "Owen",
    "Predicted",
    "Rise",
    "ScoreCam",
    "Shapley",
    "SmoothGrad",
    "SmoothGradSquared",
    "SmoothIG",
    "SmoothIGSquared",
    "Target",
    "VarGrad",
    "Voxel",
    "XGradCam",
    "estimate",
    "explain",
    "layers",
    "method_of",
]


def test_top() -> None:
    assert voxplain.__all__ == TOP


def test_attribution() -> None:
    package = import_module("voxplain.attribution")
    assert package.__all__ == ATTRIBUTION
    assert all(hasattr(package, name) for name in ATTRIBUTION)


def test_counterfactual() -> None:
    package = import_module("voxplain.counterfactual")
    assert package.__all__ == COUNTERFACTUAL
    assert all(hasattr(package, name) for name in COUNTERFACTUAL)


@pytest.mark.parametrize("name", TOP)
def test_each_name_is_there(name: str) -> None:
    assert callable(getattr(voxplain, name))
    assert name in dir(voxplain)


@pytest.mark.parametrize(
    "statement",
    [
        "import voxplain; voxplain.explain; call = voxplain.explain",
        "from voxplain import explain as call",
        "from voxplain.attribution import SmoothGrad; import voxplain; call = voxplain.explain",
        "import voxplain.attribution; call = voxplain.explain",
    ],
)
def test_explain_can_be_called_however_it_was_imported(statement: str) -> None:
    # no package may have the name of a function of voxplain: importing it would hide the function
    program = f"{statement}\ntry:\n    call()\nexcept TypeError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "missing 2 required positional arguments: 'model' and 'image'" in done.stdout


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        voxplain.explian  # noqa: B018
