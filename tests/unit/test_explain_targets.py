from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.attribution import (
    ClassTarget,
    Difference,
    Everywhere,
    FunctionTarget,
    Gradient,
    Instance,
    IntegratedGradients,
    Mask,
    Predicted,
    SmoothGrad,
    Voxel,
    explain,
)
from voxplain.attribution.integrated import quadrature
from voxplain.attribution.method import Method
from voxplain.attribution.scores import check_score, score_of
from voxplain.attribution.targets import Target
from voxplain.errors import GridError, TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Linear, Pooled, Quadratic, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE = (5, 7, 11)
GRID = oblique_grid(SHAPE)
WINDOW = WindowSettings((4, 5, 6), overlap=0.4)
W = np.array([[1.0, -2.0], [0.5, 3.0], [-0.75, 1.5]])
FLOAT64 = Compute("cpu", precision="float64", batch_size=4)


@pytest.fixture
def x() -> NDArray[np.float64]:
    return np.random.default_rng(5).normal(size=(2, *SHAPE))


@pytest.fixture
def image(x: NDArray[np.float64]) -> Volume:
    return Volume(x, GRID)


def linear(activation: str = "softmax", **settings: Any) -> Model:
    return wrap(Linear(W), classes=["a", "b", "c"], channels=["u", "v"], window=WINDOW,
                activation=activation, check=False, **settings)  # type: ignore[arg-type]  # fmt: skip


def run(model: Model, image: Volume, target: str | Target | Sequence[str | Target],
        method: Method | None = None, **settings: Any) -> Explanation:  # fmt: skip
    return explain(model, image, target, method or Gradient(), compute=FLOAT64, **settings)


def only(result: Explanation) -> NDArray[np.floating]:
    (attribution,) = result.attributions.values()
    return attribution.values


def logits_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.tensordot(W, x, axes=1)


def softmax(L: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(L) / np.exp(L).sum(0)


def gradient_of(cotangent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the voxelwise linear network, from dT/dL."""
    return np.tensordot(W.T, cotangent, axes=1)


def close(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)


# -- where ----------------------------------------------------------------------------------
def test_predicted_mask_by_argmax(image: Volume, x: NDArray[np.float64]) -> None:
    L = logits_of(x)
    for k, name in enumerate("abc"):
        mask = L.argmax(0) == k
        result = run(linear(), image, f"class:{name}")
        close(only(result), W[k][:, None, None, None] * mask)
        assert result.targets[0].score == pytest.approx(L[k][mask].sum())
        assert f"sum of the logit of {name} over {mask.sum()} voxels" in (
            result.targets[0].description
        )


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_the_prediction_is_the_argmax(
    image: Volume, x: NDArray[np.float64], activation: str
) -> None:
    result = run(linear(activation), image, "class:a")
    assert result.prediction is not None
    assert np.array_equal(result.prediction.layers[0], logits_of(x).argmax(0))
    assert result.regions.region_names == ("a", "b", "c")


def test_sigmoid_classes_overlap(image: Volume, x: NDArray[np.float64]) -> None:
    L = logits_of(x)
    result = run(linear("sigmoid"), image, "all")
    assert result.prediction is not None
    assert not result.prediction.is_disjoint
    for k, name in enumerate("abc"):
        mask = L[k] > 0
        assert np.array_equal(result.prediction.mask(name), mask)
        close(result[name].values, W[k][:, None, None, None] * mask)
    assert ((L > 0).sum(0) > 1).any()


def test_a_single_logit(image: Volume, x: NDArray[np.float64]) -> None:
    model = wrap(Linear(W[1:2]), classes=["lesion"], channels=["u", "v"], window=WINDOW,
                 activation="sigmoid", check=False)  # fmt: skip
    mask = logits_of(x)[1] > 0
    result = run(model, image, ["class:lesion", ClassTarget("lesion", score="probability")])
    close(result["lesion"].values, W[1][:, None, None, None] * mask)
    p = 1 / (1 + np.exp(-logits_of(x)[1]))
    close(result["lesion[probability]"].values, W[1][:, None, None, None] * (mask * p * (1 - p)))
    assert result.prediction is not None
    assert np.array_equal(result.prediction.mask("lesion"), mask)
    assert result.regions.region_names == ("background", "lesion")


def test_the_dominant_class_of_a_mask(image: Volume, x: NDArray[np.float64]) -> None:
    predicted = logits_of(x).argmax(0)
    # more voxels of the background a than of c, and none of b: c is meant
    mask = np.zeros(SHAPE, dtype=bool)
    for k, n in ((0, 30), (2, 4)):
        mask[tuple(np.argwhere(predicted == k)[:n].T)] = True
    found = only(run(linear(), image, ClassTarget(None, Mask(LabelMap.of(mask, GRID)))))
    close(found, W[2][:, None, None, None] * mask)
    background = LabelMap.of(mask & (predicted == 0), GRID)
    found = only(run(linear(), image, ClassTarget(None, Mask(background))))
    close(found, W[0][:, None, None, None] * background.mask(1))


def test_the_dominant_class_with_sigmoid(image: Volume, x: NDArray[np.float64]) -> None:
    k = int((logits_of(x) > 0).reshape(3, -1).sum(1).argmax())
    found = only(run(linear("sigmoid"), image, "everywhere"))
    close(found, np.broadcast_to(W[k][:, None, None, None], found.shape))


def test_instances_by_size() -> None:
    data = np.full((1, *SHAPE), -1.0)
    data[0, :2, :2, :2] = 1  # 8 voxels
    data[0, 4, 4:7, 5:9] = 1  # 12 voxels
    data[0, 2, 2, 2] = 1  # touches the first by a corner alone
    model = wrap(Linear([[-1.0], [1.0]]), classes=["a", "b"], channels=["u"], window=WINDOW,
                 check=False)  # fmt: skip
    image = Volume(data, GRID)

    def mask(number: int, **settings: int) -> NDArray[np.bool_]:
        target = ClassTarget("b", Instance(number, **settings))
        return only(run(model, image, target))[0] != 0

    assert np.array_equal(mask(1), (data[0] > 0) & (np.arange(5) == 4)[:, None, None])
    assert mask(2).sum() == 8
    assert mask(3).sum() == 1
    assert mask(2, connectivity=3).sum() == 9
    with pytest.raises(TargetError, match=r"instance:4: the predicted class has 3 instance\(s\)"):
        mask(4)
    with pytest.raises(TargetError, match="instance:0"):
        mask(0)


@pytest.mark.parametrize("orientation", ["RAS", "PSL", "IRA"])
def test_a_voxel_is_that_of_the_image_file(orientation: str) -> None:
    grid = oblique_grid(SHAPE).reorient(orientation)
    image = volume(grid, n_channels=2)
    index = tuple(n - 2 for n in grid.shape)
    result = run(linear(orientation="LPI"), image, ClassTarget("b", Voxel(index)))
    assert "orientation LPI" in result.provenance.parameters["model_grid"]
    found = only(result)
    assert np.argwhere(found[0]).tolist() == [list(index)]
    assert found[(slice(None), *index)].tolist() == pytest.approx(W[1])


def test_a_voxel_of_the_image_is_found_on_a_coarser_grid() -> None:
    image = volume(GRID, n_channels=2)
    model = linear(spacing=(1.5, 1.4, 4.0), orientation="PIR")
    grid = model.grid_of(GRID)
    for index in ((0, 0, 0), (4, 6, 10), (2, 5, 3)):
        mask = Voxel(index).on(grid, GRID)
        (place,) = np.argwhere(mask)
        off = grid.to_index(GRID.to_world(index)) - place
        assert np.abs(off).max() <= 0.5 + 1e-9
        run(model, image, ClassTarget("b", Voxel(index)))


@pytest.mark.parametrize("index", [(5, 0, 0), (0, -1, 0), (0, 0), (0, 0, 0, 0)])
def test_a_voxel_outside_is_refused(image: Volume, index: tuple[int, ...]) -> None:
    with pytest.raises(TargetError, match=r"is outside the image of shape \(5, 7, 11\)"):
        run(linear(), image, ClassTarget("a", Voxel(index)))


def test_a_mask_on_another_grid(image: Volume) -> None:
    fine = GRID.respace([s / 2 for s in GRID.spacing]).reorient("LPI")
    inside = np.random.default_rng(0).random(SHAPE) < 0.3
    voxels = np.stack(np.meshgrid(*map(np.arange, fine.shape), indexing="ij"), axis=-1)
    index = np.rint(GRID.to_index(fine.to_world(voxels))).astype(int)
    index = np.clip(index, 0, np.array(SHAPE) - 1)
    labels = LabelMap.of(inside[tuple(np.moveaxis(index, -1, 0))], fine)
    mask = Mask(labels).on(GRID)
    assert (mask == inside).mean() > 0.9
    close(only(run(linear(), image, ClassTarget("b", Mask(labels)))),
          W[1][:, None, None, None] * mask)  # fmt: skip


def test_a_mask_that_is_not_there_is_refused(image: Volume) -> None:
    empty = LabelMap.of(np.zeros(SHAPE, bool), GRID, {1: "lesion"})
    with pytest.raises(TargetError, match="no voxel of this mask lies on the model's grid"):
        run(linear(), image, ClassTarget("a", Mask(empty)))
    with pytest.raises(TargetError, match="mask:lesion: no voxel"):
        run(linear(), image, ClassTarget("a", Mask(empty, "lesion")))
    away = GRID.crop((500, 0, 0), SHAPE)
    with pytest.raises(GridError, match="the label map and the grid asked for do not overlap"):
        run(linear(), image, ClassTarget("a", Mask(LabelMap.of(np.ones(SHAPE, bool), away))))


# -- scores and reductions ------------------------------------------------------------------
def test_mean_and_weighted(image: Volume, x: NDArray[np.float64]) -> None:
    L = logits_of(x)
    mask = L.argmax(0) == 1
    mean = run(linear(), image, ClassTarget("b", reduction="mean"))
    close(only(mean), W[1][:, None, None, None] * mask / mask.sum())
    assert mean.targets[0].score == pytest.approx(L[1][mask].mean())
    # the probability is held: no gradient goes through it
    p = softmax(L)[1]
    weighted = run(linear(), image, ClassTarget("b", reduction="weighted"))
    close(only(weighted), W[1][:, None, None, None] * p)
    assert weighted.targets[0].score == pytest.approx((p * L[1]).sum())
    given = np.random.default_rng(2).random(SHAPE) < 0.2
    within = ClassTarget("b", Mask(LabelMap.of(given, GRID)), reduction="weighted")
    close(only(run(linear(), image, within)), W[1][:, None, None, None] * (p * given))


def test_weighted_over_a_mask_taken_anew_is_refused(image: Volume) -> None:
    # the probability is that of the clean input: nothing is taken anew
    with pytest.raises(TargetError, match="weighted"):
        run(linear(), image, ClassTarget("b", Predicted(hold=False), reduction="weighted"))


def test_score_definitions() -> None:
    L = torch.randn(3, 4, 5, dtype=torch.float64)
    p = torch.softmax(L, 0)[1]
    other = torch.maximum(L[0], L[2])
    for score, wanted in {
        "logit": L[1], "probability": p, "log_odds": torch.log(p / (1 - p)), "margin": L[1] - other,
    }.items():  # fmt: skip
        torch.testing.assert_close(score_of(L, 1, score, "softmax"), wanted)  # type: ignore[arg-type]
    for score, wanted in {
        "logit": L[1], "probability": torch.sigmoid(L[1]), "log_odds": L[1], "margin": L[1],
    }.items():  # fmt: skip
        torch.testing.assert_close(score_of(L, 1, score, "sigmoid"), wanted)  # type: ignore[arg-type]


def test_log_odds_do_not_saturate() -> None:
    L = torch.tensor([0.0, 80.0, 1.0]).reshape(3, 1)
    assert float(score_of(L, 1, "log_odds", "softmax")) == pytest.approx(80 - np.log(1 + np.e))
    assert float(score_of(L, 1, "probability", "softmax")) == 1.0


@pytest.mark.parametrize("score", ["probability", "log_odds", "margin"])
def test_scores_that_need_an_activation(image: Volume, score: str) -> None:
    with pytest.raises(TargetError, match=f"score '{score}' needs an activation"):
        run(linear("none"), image, ClassTarget("a", Everywhere(), score=score))  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["weighted", "dice"])
def test_reductions_that_need_an_activation(image: Volume, reduction: str) -> None:
    with pytest.raises(TargetError, match="needs an activation"):
        run(linear("none"), image, ClassTarget("a", Everywhere(), reduction=reduction))  # type: ignore[arg-type]


def test_softmax_over_one_class_is_constant() -> None:
    check_score("logit", "softmax", 1)
    for score in ("probability", "log_odds", "margin"):
        with pytest.raises(TargetError, match="softmax over one class is constant"):
            check_score(score, "softmax", 1)


def test_sigmoid_dice(image: Volume, x: NDArray[np.float64]) -> None:
    mask = np.random.default_rng(2).random(SHAPE) < 0.2
    result = run(linear("sigmoid"), image,
                 ClassTarget("b", Mask(LabelMap.of(mask, GRID)), reduction="dice"))  # fmt: skip
    p = 1 / (1 + np.exp(-logits_of(x)[1]))
    total = p.sum() + mask.sum()
    dice = 2 * (p * mask).sum() / total
    assert result.targets[0].score == pytest.approx(dice)
    wanted = (2 * mask - dice) / total * p * (1 - p)
    close(only(result), W[1][:, None, None, None] * wanted)
    assert result.unit == "Dice per intensity"


# -- held or taken anew ---------------------------------------------------------------------
@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_the_mask_of_noisy_copies(image: Volume, hold: bool, score: str) -> None:
    """Against the definition, computed anew at each copy."""
    n, noise = 4, 0.3
    field = NoiseField(3, case=int(image.sha256()[:16], 16))
    sigma = noise * np.ptp(image.data, axis=(1, 2, 3), keepdims=True)
    clean = torch.from_numpy(np.tensordot(W, image.data**2, axes=1))
    wanted = np.zeros_like(image.data)
    flips = 0
    for i in range(n):
        copy = image.data + sigma * field.crop(i, 2, Box.whole(SHAPE))
        leaf = torch.from_numpy(copy).requires_grad_()
        L = torch.einsum("kc,cxyz->kxyz", torch.from_numpy(W), leaf**2)
        mask = (clean if hold else L.detach()).argmax(0) == 1
        flips += int((mask != (clean.argmax(0) == 1)).sum())
        values = L[1] if score == "logit" else torch.softmax(L, 0)[1]
        wanted += torch.autograd.grad((values * mask).sum(), leaf)[0].numpy() / n
    assert (flips == 0) == hold
    model = describe(Quadratic(W), n_channels=2, window=WINDOW)
    target = ClassTarget("class_1", Predicted(hold=hold), score=score)  # type: ignore[arg-type]
    found = only(run(model, image, target, SmoothGrad(n=n, noise=noise), seed=3))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_a_mask_taken_anew_can_appear_on_the_way() -> None:
    """A class that is absent from the clean image, but not from the path to it."""
    image = Volume(np.full((1, *SHAPE), 2.0), GRID)

    class Bump(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.cat([0.5 + 0 * windows, windows**2 * (2 - windows)], 1)

    model = describe(Bump(), n_classes=2, window=WINDOW)
    target = ClassTarget("class_1", Predicted(hold=False))
    found = only(run(model, image, target, IntegratedGradients(n=3)))
    points, weights = quadrature("gauss_legendre", 3)
    x = 2 * points
    wanted = 2 * (weights * (4 * x - 3 * x**2) * (x**2 * (2 - x) > 0.5)).sum()
    assert abs(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


# -- combinations ---------------------------------------------------------------------------
def test_difference(image: Volume, x: NDArray[np.float64]) -> None:
    L = logits_of(x)
    target = ClassTarget("a", Everywhere()) - ClassTarget("c", Voxel((1, 2, 3)), score="logit")
    result = run(linear(), image, target)
    assert isinstance(target, Difference)
    assert target.name == "a@everywhere minus c@voxel:1,2,3"
    assert result.targets[0].score == pytest.approx(L[0].sum() - L[2, 1, 2, 3])
    cotangent = np.zeros((3, *SHAPE))
    cotangent[0] = 1
    cotangent[2, 1, 2, 3] -= 1
    close(only(result), gradient_of(cotangent))
    assert result.unit == "logit per intensity"
    assert " minus sum of the logit of c" in result.targets[0].description


def test_difference_with_an_absent_class(image: Volume) -> None:
    model = wrap(Linear(np.vstack([W[1], W[1] * 0])), classes=["a", "none"], channels=["u", "v"],
                 window=WINDOW, check=False)  # fmt: skip
    positive = image.with_data(np.abs(image.data))
    absent = ClassTarget("none")
    close(only(run(model, positive, Difference(ClassTarget("a"), absent))),
          only(run(model, positive, ClassTarget("a"))))  # fmt: skip
    both = run(model, positive, Difference(absent, ClassTarget("none", label="again")))
    assert not only(both).any()
    assert both.targets[0].score == 0


def test_mixed_units_are_said(image: Volume) -> None:
    target = Difference(ClassTarget("a", Everywhere()), ClassTarget("b", Everywhere(), "margin"))
    assert run(linear(), image, target).unit == "mixed per intensity"
    two = run(linear(), image, ["class:a", ClassTarget("b", score="margin")])
    assert two.unit == "unit of each target"
    assert two["b[margin]"].unit == "margin per intensity"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda L: L[0], "returns one differentiable number, got shape"),
        (lambda L: (L[0] > 0).sum(), "requires_grad=False"),
        (lambda L: L[0].sum().detach(), "requires_grad=False"),
        (lambda L: L[0].sum().item(), "returns one differentiable number, got float"),
        (lambda L: None, "returns one differentiable number, got NoneType"),
    ],
)
def test_functions_that_are_no_target(
    image: Volume, function: Callable[[torch.Tensor], Any], message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        run(linear(), image, FunctionTarget(function, "mine"))


def test_function(image: Volume, x: NDArray[np.float64]) -> None:
    L = logits_of(x)
    seen: list[tuple[int, ...]] = []

    def energy(logits: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(logits.shape))
        return (logits[1] ** 2).sum().reshape(1)

    result = run(linear(), image, FunctionTarget(energy, "energy"))
    close(only(result), W[1][:, None, None, None] * 2 * L[1])
    assert result.targets[0].score == pytest.approx((L[1] ** 2).sum())
    assert set(seen) == {(3, *SHAPE)}
    assert result.targets[0].description == "function energy of the stitched logits"


# -- classifiers ----------------------------------------------------------------------------
@pytest.fixture
def picture() -> Volume:
    return Volume(np.random.default_rng(1).normal(size=(2, 6, 9)),
                  Grid((6, 9), np.diag([0.7, 1.1, 1.0])))  # fmt: skip


def classifier(net: nn.Module) -> Model:
    return wrap(net, classes=["healthy", "ill", "other"], channels=["u", "v"],
                kind="classification", rank=2, check=False)  # fmt: skip


@pytest.mark.parametrize("score", ["logit", "probability", "log_odds", "margin"])
def test_classification(picture: Volume, score: str) -> None:
    net = Pooled(SmallNet(2, 2, 3, seed=3))
    leaf = torch.from_numpy(picture.data).requires_grad_()
    net.double()
    value = score_of(net(leaf[None])[0], 1, score, "softmax")  # type: ignore[arg-type]
    (wanted,) = torch.autograd.grad(value, leaf)
    net.float()
    result = run(classifier(net), picture, ClassTarget("ill", score=score))  # type: ignore[arg-type]
    close(only(result), wanted.numpy())
    assert result.targets[0].score == pytest.approx(value.item())
    assert result.prediction is None
    assert result.table.regions == ("image",)
    assert result.table.frame["share"].sum() == pytest.approx(1)


def test_classification_through_the_other_doors(picture: Volume) -> None:
    net = Pooled(Linear(W))
    model = classifier(net)
    everywhere = run(model, picture, ["class:ill@everywhere", "class:ill"])
    wanted = np.broadcast_to(W[1][:, None, None] / 54, (2, 6, 9))
    for attribution in everywhere.attributions.values():
        close(attribution.values, wanted)
    shapes: list[tuple[int, ...]] = []

    def best(logits: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(logits.shape))
        return logits[1] - logits[0]

    close(only(run(model, picture, FunctionTarget(best, "best"))),
          np.broadcast_to((W[1] - W[0])[:, None, None] / 54, (2, 6, 9)))  # fmt: skip
    assert set(shapes) == {(3,)}
    smooth = run(model, picture, "class:ill", SmoothGrad(n=8, tolerance=0.5))
    close(only(smooth), wanted)
    integrated = run(model, picture, "class:ill", IntegratedGradients(n=1, gap_tolerance=1e-6))
    close(only(integrated), wanted * picture.data)


@pytest.mark.parametrize("where", [Voxel((1, 2)), Instance(1)])
def test_a_classifier_has_no_places(picture: Volume, where: Voxel | Instance) -> None:
    with pytest.raises(TargetError, match="classifies whole images, its targets are class:NAME"):
        run(classifier(Pooled(Linear(W))), picture, ClassTarget("ill", where))


# -- names ----------------------------------------------------------------------------------
def test_one_name_twice_is_refused(image: Volume) -> None:
    with pytest.raises(TargetError, match="a target was asked for twice: a"):
        run(linear(), image, ["all", "class:a"])
    labelled = run(linear(), image, ["class:a", ClassTarget("a", label="again")])
    assert labelled.table.targets == ("a", "again")


def test_an_unknown_class_is_refused_with_the_nearest(image: Volume) -> None:
    model = wrap(Linear(W), classes=["background", "liver", "spleen"], channels=["u", "v"],
                 window=WINDOW, check=False)  # fmt: skip
    with pytest.raises(TargetError, match="no class 'livre'; did you mean 'liver'"):
        run(model, image, "class:livre")
