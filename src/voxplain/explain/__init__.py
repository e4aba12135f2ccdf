"""Targets and attribution methods, and `explain`, which puts them together."""

from voxplain.explain.baselines import Blurred, Constant, GivenImage, MeanImage
from voxplain.explain.estimate import Estimate, estimate
from voxplain.explain.gradient import Gradient, InputXGradient
from voxplain.explain.integrated import IntegratedGradients
from voxplain.explain.methods import METHODS, PRESETS, method_of
from voxplain.explain.run import explain
from voxplain.explain.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from voxplain.explain.targets import ClassTarget, Difference, FunctionTarget, Target
from voxplain.explain.where import Everywhere, Instance, Mask, Predicted, Voxel

__all__ = [
    "METHODS",
    "PRESETS",
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
    "Predicted",
    "SmoothGrad",
    "SmoothGradSquared",
    "Target",
    "VarGrad",
    "Voxel",
    "estimate",
    "explain",
    "method_of",
]
