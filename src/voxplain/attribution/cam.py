"""Class activation maps: where, at a layer, the evidence for a target lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from voxplain.attribution.cam_maps import cam_passes, emit_cams, mean_of_layers
from voxplain.attribution.choose_layer import check_layers
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError
from voxplain.inference.cells import Upsampling
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind

Fuse = Literal["scaled_maximum", "mean"]


class _Cam:
    """What the gradient-based maps share; `weigh` is the formula."""

    layers: str
    relu: bool
    upsampling: Upsampling = "half_pixel"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layers(self.layers)

    def passes(self, question: Question) -> Passes:
        """One gradient at the clean input, and the choice of a layer that is not named."""
        return cam_passes(question, check_layers(self.layers))

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        names = check_layers(self.layers)
        return emit_cams(
            question, names, self.weigh, mean_of_layers(emit), relu=self.relu,
            upsampling=self.upsampling,
        )  # fmt: skip

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the map before the rectifier, (n, *cells), from two of (n, channels, *cells)."""
        raise NotImplementedError


@dataclass(frozen=True)
class GradCam(_Cam):
    """ReLU(Σ_c mean(G_c)·A_c): a layer's channels A, weighted by their mean gradient G = dT/dA.

    A target over a mask or an instance, as all of segmentation are, makes it Seg-Grad-CAM
    (Vinogradova et al. 2020).

    Parameters
    ----------
    layers
        Where to look: ``auto``, ``bottleneck``, ``last``, a layer's name, or several joined with
        ``+``, whose maps are averaged; ``voxplain layers`` lists them. ``bottleneck``: fewest
        cells (more than one), most channels. ``last``: last feature map of the finest
        resolution. ``auto``: the bottleneck; of a classifier the last layer before pooling.
    relu
        Leave out what speaks against the target; false keeps the sign.
    upsampling
        ``half_pixel``: a cell's value belongs to its centre. ``tf1``: to its first voxel, as
        TensorFlow 1 resized, which shifts the map by half a cell towards the first voxel; only
        to repeat maps made with it.

    Notes
    -----
    Each view w of each window has its own map M_w, from its own activations and G, the gradient
    of Σ C·ℓ_w over the window (C = dT/dL: which voxels and classes the target counts). The map
    is their blend Σ_w g_w/Σg·up(M_w), where up is linear interpolation from the cells'
    centres; g_w/Σg, the share of the view in the stitched logits, stands there alone, so that
    neither overlap nor views change the scale. A window that the target does not reach counts
    as 0. Through one window the map is the published one, up to interpolation.

    Passes: one forward and one backward a target for each view of each active window; two
    forward and one backward more to choose a layer that is not named. Memory: one window's
    graph.

    Differs from the papers, which scale each map to [0, 1]; here the scale is kept.

    References
    ----------
    Selvaraju et al. 2017, arXiv 1610.02391, eq. 1 and 2; Vinogradova et al. 2020, arXiv
    2002.11434, eq. 2.
    """

    layers: str = "auto"
    relu: bool = True
    upsampling: Upsampling = "half_pixel"

    name: ClassVar[str] = "grad_cam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.upsampling not in get_args(Upsampling):
            raise MethodError(
                f"upsampling is one of {', '.join(get_args(Upsampling))}; got {self.upsampling!r}"
            )

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Σ_c mean(G_c)·A_c."""
        return (_over_cells(gradients, torch.mean) * activations).sum(1)


@dataclass(frozen=True)
class GradCamPlusPlus(_Cam):
    """ReLU(Σ_c A_c·Σ α_c·ReLU(G_c)) with α = G²/(2G² + Σ_cells A·G³): Grad-CAM++.

    Parameters
    ----------
    layers, relu
        As for `grad_cam`.

    Notes
    -----
    α is that of the paper for a score exp(T), whose second and third derivatives are G² and G³
    for networks of rectifiers; 0 where its denominator is 0. It is not linear in G: a target
    that is a sum over many voxels gives other weights than their mean; the published scale, one
    number an image, is that of reduction ``mean``. Windows, passes and memory as for
    `grad_cam`.

    References
    ----------
    Chattopadhay et al. 2018, arXiv 1710.11063, eq. 5 and 19.
    """

    layers: str = "auto"
    relu: bool = True

    name: ClassVar[str] = "grad_cam_pp"

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Σ_c A_c·Σ α_c·ReLU(G_c)."""
        # G = largest·g, so that g³ does not underflow: α = g²/(2g² + largest·Σ A·g³)
        largest = _over_cells(gradients.abs(), torch.amax).amax(1, keepdim=True)
        unit = gradients / largest.where(largest > 0, 1)
        square = unit.square()
        cubes = _over_cells(activations * square * unit, torch.sum) * largest
        alpha = _ratio(square, 2 * square + cubes)
        return (_over_cells(alpha * gradients.relu(), torch.sum) * activations).sum(1)


@dataclass(frozen=True)
class HiResCam(_Cam):
    """ReLU(Σ_c G_c·A_c), cell by cell: no channel's gradient is averaged over the layer.

    Parameters
    ----------
    layers, relu
        As for `grad_cam`.

    Notes
    -----
    Windows, passes and memory as for `grad_cam`. Where the target is linear behind the layer,
    the cells of one window's signed map add up to the target less what does not depend on A.

    References
    ----------
    Draelos & Carin 2020, arXiv 2011.08891, eq. 4.
    """

    layers: str = "auto"
    relu: bool = True

    name: ClassVar[str] = "hires_cam"

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Σ_c G_c·A_c."""
        return (gradients * activations).sum(1)


@dataclass(frozen=True)
class XGradCam(_Cam):
    """ReLU(Σ_c w_c·A_c) with w_c = Σ_cells G_c·A_c / Σ_cells A_c: each channel's contribution.

    Parameters
    ----------
    layers, relu
        As for `grad_cam`.

    Notes
    -----
    A channel whose activations sum to 0 has weight 0. The denominator is a sum of signed
    activations: at a layer that does not end in a rectifier it can be near 0 and its channel's
    weight as large as it will. Windows, passes and memory as for `grad_cam`.

    References
    ----------
    Fu et al. 2020, arXiv 2008.02312, eq. 8.
    """

    layers: str = "auto"
    relu: bool = True

    name: ClassVar[str] = "xgrad_cam"

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Σ_c w_c·A_c."""
        products = _over_cells(gradients * activations, torch.sum)
        weights = _ratio(products, _over_cells(activations, torch.sum))
        return (weights * activations).sum(1)


@dataclass(frozen=True)
class LayerCam(_Cam):
    """ReLU(Σ_c ReLU(G_c)·A_c), cell by cell, of one layer or fused from several.

    Parameters
    ----------
    layers
        As for `grad_cam`; several from shallow to deep.
    relu
        As for `grad_cam`; concerns the outer rectifier.
    fuse
        Several layers: ``scaled_maximum``, max_l of tanh(γ·M_l/max M_l) for all but the last,
        deepest one, and M/max M for that, times its largest value, so the unit stays; or
        ``mean``.
    gamma
        γ > 0.

    Notes
    -----
    Maps are fused after they are stitched, so max M_l is that of the whole image. Windows,
    passes and memory as for `grad_cam`; ``scaled_maximum`` keeps the maps of all layers and
    targets on the targets' reach. Where the deepest map is zero, so is the fused one.

    References
    ----------
    Jiang et al. 2021, LayerCAM, IEEE TIP 30, 5875, eq. 5, 6 and section III-D.
    """

    layers: str = "auto"
    relu: bool = True
    fuse: Fuse = "scaled_maximum"
    gamma: float = 2.0

    name: ClassVar[str] = "layer_cam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fuse not in get_args(Fuse):
            raise MethodError(f"fuse is one of {', '.join(get_args(Fuse))}; got {self.fuse!r}")
        if not 0 < self.gamma < float("inf"):
            raise MethodError(f"gamma is positive, got {self.gamma}")
        if not self.relu and self.fuse == "scaled_maximum" and len(check_layers(self.layers)) > 1:
            raise MethodError(
                "a maximum of signed maps would hide what speaks against the target: with "
                "relu=false take one layer, or fuse=mean"
            )

    def weigh(self, activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Σ_c ReLU(G_c)·A_c."""
        return (gradients.relu() * activations).sum(1)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        names = check_layers(self.layers)
        if len(names) == 1 or self.fuse == "mean":
            return super().attribute(question, emit)
        maps = MapSum(question, n_channels=len(names))
        outcome = emit_cams(
            question, names, self.weigh, maps.add, relu=self.relu, decisive=slice(-1, None)
        )
        if maps.box.n_voxels:
            emit(maps.box, self._fused(maps.values))
        return outcome

    def _fused(self, maps: torch.Tensor) -> torch.Tensor:
        """One map from (n_targets, n_layers, *box.shape)."""
        peaks = _over_cells(maps, torch.amax)
        scaled = maps / peaks.where(peaks > 0, 1)
        shallow = torch.tanh(self.gamma * scaled[:, :-1])
        return torch.cat([shallow, scaled[:, -1:]], 1).amax(1, keepdim=True) * peaks[:, -1:]


def _over_cells(values: torch.Tensor, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Reduce (n, channels, *cells) over the cells, which become one."""
    axes: Sequence[int] = range(2, values.ndim)
    return reduce(values, dim=tuple(axes), keepdim=True)


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Quotient, 0 where `below` is 0."""
    return torch.where(below == 0, 0, above / below.where(below != 0, 1))
