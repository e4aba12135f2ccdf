"""Targets and attribution methods, and `explain`, which puts them together."""

from voxplain.attribution.baselines import Blurred, Constant, GivenImage, MeanImage
from voxplain.attribution.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, XGradCam
from voxplain.attribution.choose_layer import layers
from voxplain.attribution.deep_lift import DeepLift
from voxplain.attribution.estimate import Estimate
from voxplain.attribution.gradient import Gradient, InputXGradient
from voxplain.attribution.guided import Deconvnet, GuidedBackprop, GuidedGradCam
from voxplain.attribution.integrated import IntegratedGradients
from voxplain.attribution.methods import METHODS, PRESETS, method_of
from voxplain.attribution.owen import Owen
from voxplain.attribution.run import estimate, explain
from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.shapley import Shapley
from voxplain.attribution.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from voxplain.attribution.targets import ClassTarget, Difference, FunctionTarget, Target
from voxplain.attribution.where import Everywhere, Instance, Mask, Predicted, Voxel
from voxplain.attribution.xrai import XRAI

__all__ = [
    "METHODS",
    "PRESETS",
    "XRAI",
    "Blurred",
    "ClassTarget",
    "Constant",
    "Deconvnet",
    "DeepLift",
    "Difference",
    "Estimate",
    "Everywhere",
    "FunctionTarget",
    "GivenImage",
    "GradCam",
    "GradCamPlusPlus",
    "Gradient",
    "GuidedBackprop",
    "GuidedGradCam",
    "HiResCam",
    "InputXGradient",
    "Instance",
    "IntegratedGradients",
    "LayerCam",
    "Mask",
    "MeanImage",
    "Owen",
    "Predicted",
    "ScoreCam",
    "Shapley",
    "SmoothGrad",
    "SmoothGradSquared",
    "Target",
    "VarGrad",
    "Voxel",
    "XGradCam",
    "estimate",
    "explain",
    "layers",
    "method_of",
]
