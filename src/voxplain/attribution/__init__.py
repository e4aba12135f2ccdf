"""Targets and attribution methods, and `explain`, which puts them together."""

from voxplain.attribution.baselines import Blurred, Constant, GivenImage, MeanImage
from voxplain.attribution.estimate import Estimate
from voxplain.attribution.gradient import Gradient, InputXGradient
from voxplain.attribution.integrated import IntegratedGradients
from voxplain.attribution.methods import METHODS, PRESETS, method_of
from voxplain.attribution.owen import Owen
from voxplain.attribution.run import estimate, explain
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
    "Difference",
    "Estimate",
    "Everywhere",
    "FunctionTarget",
    "GivenImage",
    "Gradient",
    "InputXGradient",
    "Instance",
    "IntegratedGradients",
    "Mask",
    "MeanImage",
    "Owen",
    "Predicted",
    "Shapley",
    "SmoothGrad",
    "SmoothGradSquared",
    "Target",
    "VarGrad",
    "Voxel",
    "estimate",
    "explain",
    "method_of",
]
