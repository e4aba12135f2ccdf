"""Guided backpropagation, deconvnet and guided Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch

from voxplain.attribution.cam import GradCam
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.cells import Upsampling
from voxplain.inference.pipeline import Passes
from voxplain.inference.rectifiers import RectifierRule, Rule, check_open
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

Product = Literal["raw", "display"]


@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient, with only positive signals handed back through rectifiers.

    Each ReLU hands back R·1[x > 0]·1[R > 0], where R is what it gets; a leaky ReLU or PReLU
    of slope s the positive part of its ordinary backward pass, max(R·(1 or s), 0).

    Notes
    -----
    Cost: one gradient at the clean input; memory: one window's graph, and a quarter more for
    the signs of the rectifiers' inputs.

    The rule is not linear in R, so the sum over windows, each given C·g_w/Σg, is a definition:
    it is the method on the whole volume where one window covers it, and for several windows a
    sum of each window's own guided map. The map of a difference of targets is not the
    difference of their maps. The paper has ReLU networks and one image at once.

    The map follows edges of the image more than what the network has learned (Adebayo et al.
    2018, arXiv 1810.03292): do not take it as evidence of what the network uses.

    A network without a rectifier (GELU, SiLU, tanh alone), and one with scripted or compiled
    parts, is refused.

    References
    ----------
    Springenberg et al. 2015, arXiv 1412.6806, fig. 1.
    """

    name: ClassVar[str] = "guided_backprop"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True

    def passes(self, question: Question) -> Passes:
        """One gradient at the clean input."""
        return question.passes_for(0, n_clean=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        return _rectified("guided", self.name, question, emit)


@dataclass(frozen=True)
class Deconvnet:
    """The gradient, with each rectifier handing back max(R, 0) whatever its input was.

    Notes
    -----
    Cost: one gradient at the clean input; memory: one window's graph.

    As for `guided_backprop`, the sum over windows is a definition. Max pooling hands back to
    the largest voxel, as in the paper; the slope of a leaky ReLU or PReLU plays no part. Of
    the image only what pooling, normalisation and other activations keep of it shows in the
    map. A network without a rectifier, and one with scripted or compiled parts, is refused.

    References
    ----------
    Zeiler & Fergus 2014, arXiv 1311.2901, section 2.1.
    """

    name: ClassVar[str] = "deconvnet"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "sensitivity"
    unit: ClassVar[str] = "{} per intensity"
    has_channels: ClassVar[bool] = True

    def passes(self, question: Question) -> Passes:
        """One gradient at the clean input."""
        return question.passes_for(0, n_clean=1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        return _rectified("deconvnet", self.name, question, emit)


@dataclass(frozen=True)
class GuidedGradCam:
    """Guided backpropagation times Grad-CAM, voxel by voxel: G_c(v)·max(M(v), 0).

    G is the signed map of `guided_backprop`, M that of `grad_cam` on the voxels; both are
    stitched from their windows before they are multiplied.

    Parameters
    ----------
    layers
        Where Grad-CAM looks, see `grad_cam`.
    product
        ``raw``: of the maps as they are; sign and scale are kept, the unit is a product of two.
        ``display``: of the two maps as drawn, D(G)·D(M), as Arun et al. 2021 have it: D sums
        magnitudes over channels and takes the least value to 0 and the 99th percentile, and what
        is above, to 1; a map with one value everywhere becomes 0 (there: not a number).
    upsampling
        Of the Grad-CAM map, see `grad_cam`.

    Notes
    -----
    Cost: that of `guided_backprop` and that of `grad_cam`. Memory: beside theirs, the guided
    maps of all targets and channels on the targets' reach; of ``display`` on the whole image.

    References
    ----------
    Selvaraju et al. 2017, arXiv 1610.02391 ("Guided Grad-CAM").
    """

    layers: str = "auto"
    product: Product = "raw"
    upsampling: Upsampling = "half_pixel"

    name: ClassVar[str] = "guided_grad_cam"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "{}² per intensity"

    def __post_init__(self) -> None:
        if self.product not in get_args(Product):
            raise MethodError(f"product is {' or '.join(get_args(Product))}, got {self.product!r}")
        self._cam()

    @property
    def has_channels(self) -> bool:
        """Whether maps are of single channels: not once they were drawn."""
        return self.product == "raw"

    def _cam(self) -> GradCam:
        return GradCam(layers=self.layers, upsampling=self.upsampling)

    def passes(self, question: Question) -> Passes:
        """Those of guided backpropagation and of Grad-CAM."""
        guided, cam = GuidedBackprop().passes(question), self._cam().passes(question)
        return Passes(guided.n_forward + cam.n_forward, guided.n_backward + cam.n_backward)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        guided = MapSum(question)
        _rectified("guided", self.name, question, guided.add)
        if self.product == "display":
            cams = MapSum(question, 1)
            outcome = self._cam().attribute(question, cams.add)
            drawn = _drawn(question, guided) * _drawn(question, cams)
            emit(question.pipeline.plan.inner(), drawn[:, None])
            return replace(outcome, settings={**outcome.settings, "drawn": "both maps"})

        def times_guided(box: Box, cam: torch.Tensor) -> None:
            common = box.intersect(guided.box)
            if common is None:
                return
            part = (slice(None), slice(None))
            maps = guided.values[(*part, *common.within(guided.box))]
            emit(common, maps * cam[(*part, *common.within(box))].cpu().clamp_min(0))

        return self._cam().attribute(question, times_guided)


def _drawn(question: Question, maps: MapSum) -> torch.Tensor:
    """Draw maps as published programs do: (n_targets, *image shape) in [0, 1]."""
    inner = question.pipeline.plan.inner()
    shape = (*maps.values.shape[:2], *inner.shape)
    whole = torch.zeros(shape, dtype=maps.values.dtype)
    common = maps.box.intersect(inner)
    if common is not None:
        part = (slice(None), slice(None))
        whole[(*part, *common.within(inner))] = maps.values[(*part, *common.within(maps.box))]
    grey = whole.abs().sum(1)
    found = torch.zeros_like(grey)
    for one, drawn in zip(grey, found, strict=True):
        low, high = float(one.min()), float(np.percentile(one.numpy(), 99))
        if high > low:
            drawn.copy_(((one - low) / (high - low)).clamp(0, 1))
    return found


def _rectified(rule: Rule, name: str, question: Question, emit: Emit) -> Outcome:
    """Emit the gradient at the clean input under a rule."""
    check_open(question.pipeline.model.module, name)
    _ = question.linear  # a target's own function is no part of the network
    with RectifierRule(rule):
        question.gradient(question.pipeline.clean, emit)
    return Outcome()
