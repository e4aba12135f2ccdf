"""Class activation maps against their formulas: windows, views, targets, passes, dead maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.attribution import (
    ClassTarget,
    Difference,
    Everywhere,
    FunctionTarget,
    Instance,
    Mask,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, XGradCam
from voxplain.attribution.method import Method
from voxplain.attribution.question import MapSum
from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.models import Failing, Mirrored, Pooled, Recorder, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", precision="float64", batch_size=2)
GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 6, 8), overlap=0.25, blend="gaussian")


class Coarse(nn.Module):
    """Strided features, a rectifier in place, and logits from them at full resolution."""

    def __init__(self, rank: int = 3, n_channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        conv = nn.Conv3d if rank == 3 else nn.Conv2d
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = conv(n_channels, 5, 3, stride=2, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.deep = conv(5, 6, 3, padding=1)
            self.head = conv(6, 3, 1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.deep(self.relu(self.down(windows))))
        mode = "trilinear" if windows.ndim == 5 else "bilinear"
        up = F.interpolate(hidden, size=windows.shape[2:], mode=mode, align_corners=False)
        return torch.as_tensor(self.head(up))


def total(values: torch.Tensor) -> torch.Tensor:
    return values.sum(tuple(range(2, values.ndim)), keepdim=True)


def plus_plus(A: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
    alpha = G**2 / (2 * G**2 + total(A * G**3))
    return (total(alpha * G.clamp(min=0)) * A).sum(1)


FORMULAS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "grad_cam": lambda A, G: (total(G) * A).sum(1) / G[0, 0].numel(),
    "hires_cam": lambda A, G: (G * A).sum(1),
    "xgrad_cam": lambda A, G: (total(G * A) / total(A) * A).sum(1),
    "layer_cam": lambda A, G: (G.clamp(min=0) * A).sum(1),
    "grad_cam_pp": plus_plus,
}
METHODS: dict[str, Callable[..., Method]] = {
    "grad_cam": GradCam,
    "hires_cam": HiResCam,
    "xgrad_cam": XGradCam,
    "layer_cam": LayerCam,
    "grad_cam_pp": GradCamPlusPlus,
}


def grid_of(shape: tuple[int, ...]) -> Grid:
    return oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])


def doubled(image: Volume) -> Volume:
    return image.with_data(image.data.astype(np.float64))


def maps_of(
    model: Model, image: Volume, targets: Any, method: Method, compute: Compute = DOUBLE
) -> np.ndarray:
    result = explain(model, image, targets, method, regions=labels(image.grid), compute=compute)
    return np.stack([a.values for a in result.attributions.values()])[:, 0]


def by_hand(
    net: nn.Module, layer: str, window: torch.Tensor, cotangent: torch.Tensor, formula: Any,
    *, relu: bool = True,
) -> torch.Tensor:  # fmt: skip
    """Map of one window, up to its voxels, by the definition."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        return output.clone()

    handle = dict(net.named_modules())[layer].register_forward_hook(keep)
    logits = net(window[None])
    handle.remove()
    (G,) = torch.autograd.grad((logits[0] * cotangent).sum(), kept[0])
    cam = formula(kept[0].detach(), G)[:, None]
    cam = cam.relu() if relu else cam
    mode = "trilinear" if window.ndim == 4 else "bilinear"
    return F.interpolate(cam, size=window.shape[1:], mode=mode, align_corners=False)[0, 0]


def shares(plan: WindowPlan, n_views: int = 1) -> list[np.ndarray]:
    return [plan.weight / (n_views * plan.normaliser(plan.box(w))) for w in range(len(plan))]


# -- through windows ---------------------------------------------------------------------
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("relu", [True, False])
def test_windows_are_stitched_by_their_shares(name: str, relu: bool) -> None:
    net, image = Coarse(n_channels=2), doubled(volume(GRID, n_channels=2, seed=3))
    mask = labels(GRID).layers[0] == 2
    target = ClassTarget("class_2", Mask(LabelMap.of(mask, GRID), name="m"))
    model = describe(net, n_channels=2, window=WINDOW)
    found = maps_of(model, image, target, METHODS[name](layers="deep", relu=relu))[0]
    plan, wanted = WindowPlan(GRID.shape, WINDOW), np.zeros(GRID.shape)
    net.double()
    for w, share in enumerate(shares(plan)):
        place = plan.box(w).slices
        cotangent = torch.zeros((3, *WINDOW.size), dtype=torch.float64)
        cotangent[2] = torch.from_numpy(mask[place].astype(float))
        if not cotangent.any():
            continue
        x = torch.from_numpy(image.data[(slice(None), *place)])
        wanted[place] += (
            share * by_hand(net, "deep", x, cotangent, FORMULAS[name], relu=relu).numpy()
        )
    assert np.abs(wanted).max() > 0
    assert relu == (wanted.min() >= 0)
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


def test_a_tap_before_a_rectifier_in_place_sees_negative_activations() -> None:
    net, image = Coarse(2), doubled(volume(grid_of((6, 8)), seed=1))
    model = describe(net, rank=2, window=(6, 8))
    found = maps_of(model, image, ClassTarget("class_1", Everywhere()), HiResCam(layers="down"))[0]
    cotangent = torch.zeros((3, 6, 8), dtype=torch.float64)
    cotangent[1] = 1
    x = torch.from_numpy(image.data)
    wanted = by_hand(net.double(), "down", x, cotangent, FORMULAS["hires_cam"])
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-12)
    assert wanted.max() > 0


@pytest.mark.parametrize("shape", [(5, 7, 11), (3, 9)])
def test_images_smaller_than_the_window_are_padded(shape: tuple[int, ...]) -> None:
    rank = len(shape)
    window = WindowSettings((6, 8, 12)[3 - rank :] if rank == 3 else (6, 12))
    image = doubled(volume(grid_of(shape), seed=2))
    net = Coarse(rank)
    found = maps_of(describe(net, rank=rank, window=window), image,
                    ClassTarget("class_1", Everywhere()), GradCam(layers="deep"))[0]  # fmt: skip
    inner = WindowPlan(shape, window).inner().slices
    x = torch.zeros((1, *window.size), dtype=torch.float64)
    x[(slice(None), *inner)] = torch.from_numpy(image.data)
    cotangent = torch.zeros((3, *window.size), dtype=torch.float64)
    cotangent[(1, *inner)] = 1
    wanted = by_hand(net.double(), "deep", x, cotangent, FORMULAS["grad_cam"])[inner].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_views_run_their_own_network_and_are_mirrored_back() -> None:
    nets, axes, shape = [Coarse(seed=1), Coarse(seed=2)], (0, 2), (4, 6, 8)
    image = doubled(volume(grid_of(shape), seed=3))
    model = Mirrored(nets, axes, window=shape)
    found = maps_of(model, image, ClassTarget("class_1", Everywhere()), HiResCam(layers="deep"))[0]
    x, wanted = torch.from_numpy(image.data), np.zeros(shape)
    cotangent = torch.zeros((3, *shape), dtype=torch.float64)
    cotangent[1] = 1
    for net in nets:
        for flip in [(), *((axis,) for axis in axes)]:
            turned = x.flip([1 + axis for axis in flip])
            part = by_hand(net.double(), "deep", turned, cotangent, FORMULAS["hires_cam"])
            wanted += part.flip(flip).numpy() / model.n_views
    assert model.n_views == 6
    np.testing.assert_allclose(found, wanted, atol=1e-12)


# -- targets -----------------------------------------------------------------------------
def test_a_mask_or_an_instance_is_seg_grad_cam() -> None:
    """Grad-CAM of Σ_{v in M} logit_c(v), written down as a function of the logits."""
    image = doubled(volume(GRID, seed=5))
    model = describe(SmallNet(seed=3), window=WINDOW)
    where = labels(GRID).layers[0] == 1
    chosen = torch.from_numpy(where)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        logits = ask(pipeline, image, "all", None, seed=0).prediction_logits.numpy()
    k = int(np.bincount(logits.argmax(0).ravel()).argmax())
    instance = torch.from_numpy(Instance(1).of(logits.argmax(0) == k, GRID))
    assert 0 < int(instance.sum()) < GRID.n_voxels
    name = model.info.class_names[k]
    targets: list[Target] = [
        ClassTarget("class_1", Mask(LabelMap.of(where, GRID), name="m")),
        FunctionTarget(lambda L: L[1][chosen].sum(), "by definition"),
        ClassTarget(name, Instance(1)),
        FunctionTarget(lambda L: L[k][instance].sum(), "instance by definition"),
        FunctionTarget(lambda L: L[1].sum(), "everywhere"),
    ]
    found = maps_of(model, image, targets, GradCam(layers="first", relu=False))
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    np.testing.assert_allclose(found[2], found[3], atol=1e-12)
    assert np.abs(found[0] - found[4]).max() > 1e-3
    assert np.abs(found[2]).max() > 1e-3


def test_targets_in_one_go_are_those_one_by_one_and_absent_ones_are_zero() -> None:
    image = doubled(volume(GRID, seed=5))
    model = describe(Coarse(seed=3), window=WINDOW)
    lesion = Mask(LabelMap.of(labels(GRID).layers[0] == 3, GRID), name="lesion")
    everywhere = ClassTarget("class_1", Everywhere(), reduction="mean")
    targets: list[Target] = [
        ClassTarget("class_1", lesion, score="probability"),
        ClassTarget("class_2", lesion, score="margin"),
        ClassTarget("class_1", lesion, reduction="dice"),
        Difference(everywhere, ClassTarget("class_2", lesion)),
        everywhere,
    ]
    for method in (GradCam(layers="deep"), LayerCam(layers="down+deep"), ScoreCam(layers="deep")):
        together = maps_of(model, image, targets, method)
        for target, found in zip(targets, together, strict=True):
            alone = maps_of(model, image, target, method)[0]
            np.testing.assert_allclose(found, alone, atol=1e-10 * max(1e-3, np.abs(alone).max()))


def test_an_absent_class_has_no_map_and_no_dead_map() -> None:
    net = Coarse(seed=3)
    with torch.no_grad():
        net.head.bias[2] = -100.0
    image = doubled(volume(GRID, seed=5))
    for method in (GradCam(), ScoreCam()):
        result = explain(
            describe(net, window=WINDOW), image, "class:class_2", method, compute=DOUBLE
        )
        assert [f.code for f in result.findings] == ["VX103"]
        (attribution,) = result.attributions.values()
        assert not attribution.values.any()
        assert result.provenance.cost.n_backward == 0


# -- layers --------------------------------------------------------------------------------
def test_several_layers_are_averaged_and_words_are_layers() -> None:
    image = doubled(volume(GRID, seed=5))
    model = describe(Coarse(seed=3), window=WINDOW)
    target = ClassTarget("class_1", Everywhere())
    one, other = (maps_of(model, image, target, HiResCam(layers=n)) for n in ("relu", "deep"))
    both = maps_of(model, image, target, HiResCam(layers="relu+deep"))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-12)
    result = explain(model, image, target, HiResCam(), compute=DOUBLE)
    assert result.provenance.parameters["layers"] == "auto"
    assert result.provenance.parameters["layers_used"] == "deep"
    (auto,) = result.attributions.values()
    np.testing.assert_array_equal(auto.values, other[0][None])


def test_layer_cam_fuses_by_the_papers_rule() -> None:
    image = doubled(volume(GRID, seed=5))
    model = describe(Coarse(seed=3), window=WINDOW)
    target = ClassTarget("class_1", Everywhere())
    shallow, deep = (maps_of(model, image, target, LayerCam(layers=n)) for n in ("relu", "deep"))
    fused = maps_of(model, image, target, LayerCam(layers="relu+deep", gamma=3.0))
    wanted = deep.max() * np.maximum(np.tanh(3 * shallow / shallow.max()), deep / deep.max())
    np.testing.assert_allclose(fused, wanted, atol=1e-12 * wanted.max())
    assert (fused > deep).any()
    assert (fused == deep).any()
    mean = maps_of(model, image, target, LayerCam(layers="relu+deep", fuse="mean"))
    np.testing.assert_allclose(mean, (shallow + deep) / 2, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradCam(layers=""), "joined with '\\+'; got ''"),
        (lambda: GradCam(layers="a+"), "got 'a\\+'"),
        (lambda: HiResCam(layers="a+a"), "one layer twice"),
        (lambda: LayerCam(fuse="sum"), "fuse is one of scaled_maximum, mean; got 'sum'"),
        (lambda: LayerCam(gamma=0), "gamma is positive, got 0"),
        (lambda: LayerCam(layers="a+b", relu=False), "signed maps"),
        (lambda: ScoreCam(weights="sigmoid"), "weights is one of softmax, probability"),
    ],
)
def test_settings_are_checked(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make()


def test_layers_that_cannot_serve_are_refused() -> None:
    image = volume(GRID, seed=5)
    model = describe(Coarse(), window=WINDOW)
    with pytest.raises(MethodError, match="no layer 'depe'; did you mean 'deep'"):
        explain(model, image, "class:class_1", GradCam(layers="depe"))
    with pytest.raises(MethodError, match="auto\\+deep names one layer twice: deep, deep"):
        explain(model, image, "class:class_1", GradCam(layers="auto+deep"))
    plain = describe(nn.Conv3d(1, 3, 3, padding=1), window=WINDOW)
    with pytest.raises(MethodError, match="no layer for layers=auto"):
        explain(plain, image, "class:class_1", GradCam())


# -- dead maps -------------------------------------------------------------------------------
class Signed(nn.Module):
    """One feature |x|·a behind which the logits are (0, w·feature)."""

    def __init__(self, a: float, w: float) -> None:
        super().__init__()
        self.feature = nn.Identity()
        self.a, self.w = a, w

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.feature(windows.abs().sum(1, keepdim=True) * self.a)
        return torch.cat([0 * hidden, self.w * hidden], 1)


@pytest.mark.parametrize(
    ("a", "w", "cause"),
    [
        (1.0, -2.0, "no cell of feature speaks for the target.*relu=false"),
        (0.0, 2.0, "every activation of feature is 0"),
        (1.0, 0.0, "the gradient of the target at feature is 0"),
    ],
)
def test_a_dead_map_is_named_with_its_cause(a: float, w: float, cause: str) -> None:
    model = describe(Signed(a, w), n_classes=2, window=WINDOW)
    target = ClassTarget("class_1", Everywhere())
    for method in (GradCam(layers="feature"), XGradCam(layers="feature"),
                   GradCamPlusPlus(layers="feature")):  # fmt: skip
        result = explain(model, volume(GRID), target, method, regions=labels(GRID))
        (attribution,) = result.attributions.values()
        assert not attribution.values.any()  # and no NaN
        dead = [f for f in result.findings if f.code == "VX107"]
        assert [f.target for f in dead] == [target.name]
        if method.name == "grad_cam":
            assert re.search(cause, dead[0].evidence)


def test_a_fused_map_is_dead_where_its_deepest_layer_is() -> None:
    class Dying(Signed):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            shallow = self.shallow(windows.abs().sum(1, keepdim=True))
            return super().forward(shallow) + torch.cat([0 * shallow, shallow], 1)

    net = Dying(1.0, -0.5)
    net.shallow = nn.Identity()
    model = describe(net, n_classes=2, window=WINDOW)
    target = ClassTarget("class_1", Everywhere())

    def codes(layers: str) -> set[str]:
        method = LayerCam(layers=layers)
        result = explain(model, volume(GRID), target, method, regions=labels(GRID))
        return {f.code for f in result.findings} - {"VX104"}

    assert codes("shallow") == set()
    assert codes("shallow+feature") == codes("feature") == {"VX107"}
    assert codes("feature+shallow") == set()


def test_the_sign_is_there_without_the_rectifier() -> None:
    model = describe(Signed(1.0, -2.0), n_classes=2, window=WINDOW)
    target = ClassTarget("class_1", Everywhere())
    result = explain(model, volume(GRID), target, GradCam(layers="feature", relu=False))
    (attribution,) = result.attributions.values()
    assert (attribution.values < 0).all()
    assert "VX107" not in {f.code for f in result.findings}


# -- Score-CAM -------------------------------------------------------------------------------
def masks_of(A: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    mode = "trilinear" if len(size) == 3 else "bilinear"
    up = F.interpolate(A, size=size, mode=mode, align_corners=False)[0]
    low, high = up.flatten(1).amin(1), up.flatten(1).amax(1)
    axes = (-1, *[1] * len(size))
    return (up - low.reshape(axes)) / (high - low).reshape(axes)


@pytest.mark.parametrize("weights", ["softmax", "probability"])
def test_score_cam_through_windows(weights: Any) -> None:
    net, image = Coarse(n_channels=2, seed=3), doubled(volume(GRID, n_channels=2, seed=5))
    where = labels(GRID).layers[0] == 1
    target = ClassTarget("class_1", Mask(LabelMap.of(where, GRID), name="m"), reduction="mean")
    model = describe(net, n_channels=2, window=WINDOW)
    found = maps_of(model, image, target, ScoreCam(layers="deep", weights=weights))[0]
    plan, wanted = WindowPlan(GRID.shape, WINDOW), np.zeros(GRID.shape)
    net.double()
    features = lambda x: net.deep(net.relu(net.down(x)))  # noqa: E731
    with torch.no_grad():
        for w, share in enumerate(shares(plan)):
            place = plan.box(w).slices
            if not where[place].any():
                continue
            x = torch.from_numpy(image.data[(slice(None), *place)])
            A = features(x[None])
            scores = torch.stack([
                (net((x * mask)[None])[0, 1] * torch.from_numpy(where[place] * share)).sum()
                for mask in masks_of(A, WINDOW.size)
            ]) / where.sum()  # fmt: skip
            w_c = torch.softmax(scores, 0) if weights == "softmax" else scores
            cam = (w_c.reshape(-1, 1, 1, 1) * A[0]).sum(0).relu()[None, None]
            up = F.interpolate(cam, size=WINDOW.size, mode="trilinear", align_corners=False)
            wanted[place] += share * up[0, 0].numpy()
    assert wanted.max() > 0
    np.testing.assert_allclose(found, wanted, atol=1e-10 * wanted.max())


def test_score_cam_of_one_window_takes_the_targets_own_value() -> None:
    """The probability of a classifier, and not its first order."""
    grid = grid_of((6, 8))
    net, image = Coarse(2, seed=4), doubled(volume(grid, seed=2))
    model = wrap(Pooled(net), classes=("a", "b", "c"), channels=["c"], kind="classification",
                 activation="softmax", rank=2, check=False)  # fmt: skip
    target = ClassTarget("b", score="probability")
    method = ScoreCam(layers="inner.deep", weights="probability")
    found = maps_of(model, image, target, method)[0]
    net.double()
    with torch.no_grad():
        x = torch.from_numpy(image.data)
        A = net.deep(net.relu(net.down(x[None])))
        w_c = torch.stack([
            torch.softmax(net((x * mask)[None]).flatten(2).mean(2), 1)[0, 1]
            for mask in masks_of(A, (6, 8))
        ])  # fmt: skip
        cam = (w_c.reshape(-1, 1, 1) * A[0]).sum(0).relu()[None, None]
        wanted = F.interpolate(cam, size=(6, 8), mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_score_cam_of_one_window_exchanges_one_view_at_a_time() -> None:
    """T at the mean of the views' logits, of which one is that of the masked image."""
    shape = (6, 8)
    nets, image = [Coarse(2, seed=4), Coarse(2, seed=5)], doubled(volume(grid_of(shape), seed=2))
    model = Mirrored(nets, (1,), rank=2, window=shape)
    target = ClassTarget("class_1", Everywhere(), score="probability", reduction="mean")
    method = ScoreCam(layers="deep", weights="probability")
    found = maps_of(model, image, target, method)[0]
    x, wanted = torch.from_numpy(image.data), np.zeros(shape)
    views = [(net.double(), flip) for net in nets for flip in ([], [2])]

    def logits(net: nn.Module, flip: list[int], x: torch.Tensor) -> torch.Tensor:
        axes = [1 + axis for axis in flip]
        return torch.as_tensor(net(x[None].flip(axes)).flip(axes)[0])

    with torch.no_grad():
        clean = [logits(net, flip, x) for net, flip in views]
        for (net, flip), own in zip(views, clean, strict=True):
            A = net.deep(net.relu(net.down(x[None].flip([1 + a for a in flip]))))
            A = A.flip([1 + a for a in flip])
            w_c = torch.stack([
                torch.softmax((sum(clean) - own + logits(net, flip, x * mask)) / 4, 0)[1].mean()
                for mask in masks_of(A, shape)
            ])  # fmt: skip
            cam = (w_c.reshape(-1, 1, 1) * A[0]).sum(0).relu()[None, None]
            up = F.interpolate(cam, size=shape, mode="bilinear", align_corners=False)[0, 0]
            wanted += up.numpy() / 4
    np.testing.assert_allclose(found, wanted, atol=1e-12)


# -- passes, and the model afterwards ---------------------------------------------------------
LESION = Mask(LabelMap.of(labels(GRID).layers[0] == 3, GRID), name="lesion")
ASKED: dict[str, list[Target]] = {
    "one": [ClassTarget("class_1", LESION)],
    "two": [ClassTarget("class_1", LESION), ClassTarget("class_2", Everywhere(), "margin")],
}
COUNTED: list[Method] = [
    GradCam(layers="inner.deep"),
    GradCam(),
    GradCamPlusPlus(layers="auto"),
    HiResCam(layers="bottleneck+inner.down"),
    XGradCam(layers="last"),
    LayerCam(layers="inner.down+inner.deep"),
    ScoreCam(layers="inner.deep"),
    ScoreCam(),
    ScoreCam(layers="inner.down+inner.deep"),
]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("method", COUNTED, ids=lambda m: f"{m.name}-{m.layers}")
def test_passes_are_those_told(method: Method, asked: str) -> None:
    net = Recorder(Coarse(seed=3))
    model, image = describe(net, window=WINDOW), volume(GRID, seed=5)
    compute = Compute("cpu", batch_size=1)
    with open_pipeline(model, image, compute) as pipeline:
        question = ask(pipeline, image, ASKED[asked], labels(GRID), seed=0)
        _ = question.regions, question.linear
        passes = method.passes(question)
        n_told = pipeline.passes.n_forward + passes.n_forward
        assert pipeline.passes.n_backward == 0
    net.clear()
    result = explain(model, image, ASKED[asked], method, regions=labels(GRID), compute=compute)
    cost = result.provenance.cost
    assert (cost.n_forward, cost.n_backward) == (n_told, passes.n_backward)
    assert net.n_windows == cost.n_forward


def test_views_are_counted() -> None:
    model = Mirrored([Coarse(seed=1), Coarse(seed=2)], (0,), window=WINDOW)
    image = volume(GRID, seed=5)
    for method in (GradCam(), ScoreCam(layers="deep")):
        with open_pipeline(model, image, DOUBLE) as pipeline:
            question = ask(pipeline, image, ASKED["two"], labels(GRID), seed=0)
            _ = question.regions, question.linear
            passes, before = method.passes(question), pipeline.passes.n_forward
            method.attribute(question, MapSum(question, n_channels=1).add)
            assert pipeline.passes.n_forward - before == passes.n_forward
            assert pipeline.passes.n_backward == passes.n_backward


@pytest.mark.parametrize("method", COUNTED, ids=lambda m: f"{m.name}-{m.layers}")
def test_the_model_is_as_it_was(method: Method) -> None:
    net = Recorder(Coarse(seed=3)).train()
    before = {name: p.clone() for name, p in net.named_parameters()}

    def check(module: nn.Module) -> None:
        assert module.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        assert all(torch.equal(p, before[n]) and p.requires_grad for n, p in net.named_parameters())

    image = volume(GRID, seed=5)
    one = Compute("cpu", batch_size=1)
    done = explain(describe(net, window=WINDOW), image, ASKED["one"], method,
                   regions=labels(GRID), compute=one)  # fmt: skip
    check(net)
    # in the method's last pass
    failing = Failing(net.inner, after=done.provenance.cost.n_forward - 1).train()
    with pytest.raises(ModelError, match="on purpose"):
        explain(describe(failing, window=WINDOW), image, ASKED["one"], method,
                regions=labels(GRID), compute=one)  # fmt: skip
    check(failing)


def test_the_result_does_not_depend_on_the_batch_size() -> None:
    image = doubled(volume(GRID, seed=5))
    model = describe(Coarse(seed=3), window=WINDOW)
    for method in (GradCamPlusPlus(layers="deep"), ScoreCam(layers="deep")):
        one, many = (
            maps_of(model, image, ASKED["two"], method, Compute("cpu", "float64", n))
            for n in (1, 7)
        )
        np.testing.assert_allclose(one, many, atol=1e-12 * np.abs(one).max())


def test_maps_have_one_channel_and_a_kind(tmp_path: Any) -> None:
    image = volume(GRID, n_channels=2, seed=5)
    model = describe(Coarse(n_channels=2), n_channels=2, window=WINDOW)
    result = explain(model, image, "class:class_1", GradCam())
    (attribution,) = result.attributions.values()
    assert attribution.values.shape == (1, *GRID.shape)
    assert (attribution.kind, attribution.unit) == ("localisation", "logit")
    result.save(tmp_path, maps=True)
    assert Explanation.load(tmp_path).attributions.keys() == result.attributions.keys()


def test_one_scale_alone_is_served() -> None:
    result = explain(describe(SmallNet(2), rank=2, window=(4, 5)), volume(grid_of((6, 9))),
                     "class:class_1", GradCam())  # fmt: skip
    assert result.provenance.parameters["layers_used"] == "first"
