"""Targets and attribution methods, and `explain`, which puts them together."""

from voxplain.attribution.baselines import Blurred, Constant, GivenImage, MeanImage
from voxplain.attribution.blur_ig import BlurIG
from voxplain.attribution.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, XGradCam
from voxplain.attribution.choose_layer import layers
from voxplain.attribution.deep_lift import DeepLift
from voxplain.attribution.estimate import Estimate
from voxplain.attribution.expected import ExpectedGradients
from voxplain.attribution.fills import Inpainted, NoiseFill
from voxplain.attribution.gradient import Gradient, InputXGradient
from voxplain.attribution.gradient_statistics import GradientMax, GradientQuantile
from voxplain.attribution.guided import Deconvnet, GuidedBackprop, GuidedGradCam
from voxplain.attribution.guided_ig import GuidedIG
from voxplain.attribution.integrated import IntegratedGradients
from voxplain.attribution.learned_fill import LearnedInpainting
from voxplain.attribution.methods import METHODS, PRESETS, method_of
from voxplain.attribution.occlusion import Ablation, Occlusion
from voxplain.attribution.owen import Owen
from voxplain.attribution.rise import Rise
from voxplain.attribution.run import estimate, explain
from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.shapley import Shapley
from voxplain.attribution.smooth_integrated import SmoothIG, SmoothIGSquared
from voxplain.attribution.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from voxplain.attribution.targets import ClassTarget, Difference, FunctionTarget, Target
from voxplain.attribution.where import Everywhere, Instance, Mask, Predicted, Voxel
from voxplain.attribution.xrai import XRAI

__all__ = [
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
