"""Occlusion and ablation: closed forms, captum, and only the windows that are touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from captum.attr import Occlusion as CaptumOcclusion

from voxplain.attribution import (
    Ablation,
    ClassTarget,
    Everywhere,
    Gradient,
    Inpainted,
    InputXGradient,
    Mask,
    NoiseFill,
    Occlusion,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Blurred, MeanImage
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import wrap
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.models import (
    Linear,
    Mirrored,
    Pooled,
    Recorder,
    SmallNet,
    Step,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")
ALL = ClassTarget("class_1", Everywhere())


def test_single_voxels_of_a_linear_model_are_input_times_gradient() -> None:
    rng = np.random.default_rng(1)
    image = volume(GRID, 2, seed=1)
    model = describe(Linear(rng.normal(size=(3, 2))), n_channels=2, window=WINDOW)
    method = Occlusion(size=1, per_channel=True, fill=MeanImage())
    found = explain(model, image, ALL, method, compute=DOUBLE)[ALL.name].values
    wanted = explain(model, image, ALL, InputXGradient(MeanImage()), compute=DOUBLE)
    np.testing.assert_allclose(found, wanted[ALL.name].values, atol=1e-9)


def test_a_step_is_seen() -> None:
    image = volume(GRID, 1, seed=3)
    model = describe(Step([0.0, 2.0, 1.0], threshold=0.5), window=WINDOW)
    assert not explain(model, image, ALL, Gradient(), compute=DOUBLE)[ALL.name].values.any()
    found = explain(model, image, ALL, Occlusion(size=1), compute=DOUBLE)[ALL.name].values[0]
    np.testing.assert_allclose(found, 2.0 * (image.data[0] > 0.5), atol=1e-9)


@pytest.mark.parametrize(
    ("paint", "score", "views"),
    [("density", "logit", False), ("value", "logit", True), ("value", "probability", False)],
)
def test_only_touched_windows_run_and_the_result_is_the_naive_one(
    paint: str, score: str, views: bool
) -> None:
    net = Recorder(SmallNet(3, seed=2))
    model = Mirrored([net], axes=(1,), window=WINDOW) if views else describe(net, window=WINDOW)
    image = volume(GRID, 1, seed=3)
    target = ClassTarget("class_1", Everywhere(), score=score)  # type: ignore[arg-type]
    method = Occlusion(size=3, stride=2, paint=paint)  # type: ignore[arg-type]
    net.clear()
    result = explain(model, image, target, method, compute=Compute("cpu", "float64", 1))
    n_run = net.n_windows
    plan = WindowPlan(GRID.shape, WINDOW)
    loss, count = np.zeros(GRID.shape), np.zeros(GRID.shape)
    n_touched, touched_once = 0, set()
    clean = result.targets[0].score
    for i in range(0, 3, 2):
        for j in range(0, 7, 2):
            for k in range(0, 11, 2):
                place = (slice(i, i + 3), slice(j, j + 3), slice(k, k + 3))
                covered = Volume(image.data.copy(), GRID)
                covered.data[0][place] = 0
                value = explain(model, covered, target, Gradient(), compute=DOUBLE).targets[0].score
                n = np.ones(GRID.shape)[place].size
                loss[place] += (clean - value) / (n if paint == "density" else 1)
                count[place] += 1
                hit = [
                    w
                    for w in range(len(plan))
                    if all(
                        a.start < b and c < a.stop
                        for a, b, c in zip(place, plan.box(w).stop, plan.box(w).start, strict=True)
                    )
                ]
                n_touched += len(hit)
                touched_once |= set(hit)
    assert (count > 0).all()
    np.testing.assert_allclose(result[target.name].values[0], loss / count, atol=1e-9)
    if score == "logit":
        n_views = model.n_views
        assert n_run == n_views * (len(plan) + n_touched + len(touched_once))


@pytest.mark.parametrize("stride", [2, 4])
def test_captum_on_a_volume_and_a_classifier(stride: int) -> None:
    grid = oblique_grid((6, 8, 10))
    image, net = volume(grid, 2, seed=4), SmallNet(3, n_channels=2, seed=4)
    model = describe(net, n_channels=2, window=grid.shape)
    method = Occlusion(size=4, stride=stride, paint="value")
    found = explain(model, image, ALL, method, compute=DOUBLE)[ALL.name].values[0]
    x = torch.from_numpy(image.data).double()[None]
    net.double()

    def value(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(net(batch)[:, 1].flatten(1).sum(1))

    wanted = CaptumOcclusion(value).attribute(
        x, sliding_window_shapes=(2, 4, 4, 4), strides=(2, stride, stride, stride)
    )
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), rtol=1e-5, atol=1e-5)

    flat = oblique_grid((9, 11), (0.7, 1.1))
    image, net2 = volume(flat, 1, seed=4), Pooled(SmallNet(2, seed=4))
    classifier = wrap(
        net2, kind="classification", classes=("a", "b", "c"), channels=("x",), rank=2, check=False
    )
    found = explain(classifier, image, "class:b", method, compute=DOUBLE)["b"].values[0]
    x = torch.from_numpy(image.data).double()[None]
    net2.double()

    def logit(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(net2(batch)[:, 1])

    wanted = CaptumOcclusion(logit).attribute(
        x, sliding_window_shapes=(1, 4, 4), strides=(1, stride, stride)
    )
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), rtol=1e-5, atol=1e-6)


def test_ablation_is_captums_feature_ablation() -> None:
    grid = oblique_grid((6, 8, 10))
    image, net = volume(grid, 2, seed=4), SmallNet(3, n_channels=2, seed=4)
    model, regions = describe(net, n_channels=2, window=grid.shape), labels(grid, 3, seed=1)
    result = explain(model, image, ALL, Ablation(), regions=regions, compute=DOUBLE)
    assert result.players is not None
    x = torch.from_numpy(image.data).double()[None]
    net.double()

    def value(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(net(batch)[:, 1].flatten(1).sum(1))

    groups = torch.from_numpy(regions.layers.astype(np.int64))[None].expand(1, 2, *grid.shape)
    painted = FeatureAblation(value).attribute(x, feature_mask=groups.contiguous())[0, 0].numpy()
    wanted = [painted[regions.layers[0] == k][0] for k in range(4)]
    np.testing.assert_allclose(result.players.frame["value"], wanted, rtol=1e-4, atol=1e-4)
    frame = result.table.frame
    np.testing.assert_allclose(frame["positive"] + frame["negative"], wanted, rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_not_looked_at_loses_nothing() -> None:
    image = volume(GRID, 2, seed=5)
    model = describe(Linear([[0.0, 0.0], [1.5, 0.0], [0.0, 0.0]]), n_channels=2, window=WINDOW)
    result = explain(model, image, ALL, Ablation("channels"), compute=DOUBLE)
    assert result.players is not None
    np.testing.assert_allclose(
        result.players.frame["value"], [1.5 * image.data[0].sum(dtype=float), 0.0], atol=1e-9
    )
    assert np.abs(result[ALL.name].values[1]).max() < 1e-12


def test_a_lesion_costs_the_same_in_a_larger_volume() -> None:
    counts = []
    for n in (12, 36):
        grid = oblique_grid((4, 5, n))
        mask = np.zeros(grid.shape, bool)
        mask[1, 1, 1] = True
        target = ClassTarget("class_1", Mask(LabelMap.of(mask, grid)))
        net = Recorder(SmallNet(3, seed=2))
        model = describe(net, window=(4, 5, 6))
        net.clear()
        explain(model, volume(grid, 1, seed=1), target, Occlusion(size=2), regions=labels(grid))
        counts.append(net.n_windows)
    assert counts[0] == counts[1]


def test_settings_are_checked() -> None:
    for wrong, words in (
        ({"size": 0}, "size is at least 1"),
        ({"size": 4, "stride": 5}, "stride is 1 to size=4"),
        ({"paint": "red"}, "paint is density or value"),
    ):
        with pytest.raises(MethodError, match=words):
            Occlusion(**wrong)  # type: ignore[arg-type]


# -- fills ------------------------------------------------------------------------------
def test_inpainting_meets_constant_and_linear_tissue() -> None:
    """Around a part in even tissue its intensity comes back; a slope, roughly."""
    fill, grid = Inpainted(3.0), oblique_grid((15, 15, 15), (0.7, 1.1, 2.3))
    part = np.zeros((15, 15, 15), bool)
    part[4:9, 5:11, 6:9] = True
    even = np.full(part.shape, 3.5)
    even[part] = 99.0
    np.testing.assert_allclose(fill.around(even, part, grid), 3.5, rtol=1e-9)
    slope = np.broadcast_to(np.arange(15.0)[:, None, None], part.shape).copy()
    hidden = slope.copy()
    hidden[part] = -50.0
    filled = fill.around(hidden, part, grid)
    np.testing.assert_array_equal(filled[~part], slope[~part])
    assert np.abs(filled[part] - slope[part]).max() < 2.0
    with pytest.raises(MethodError, match="no surroundings"):
        fill.around(even, np.ones_like(part), grid)
    deep = np.ones((40, 6, 6), bool)
    deep[0] = False
    assert np.isfinite(fill.around(np.ones(deep.shape), deep, grid)).all()


def test_inpainted_players_and_boxes_hide_what_was_there() -> None:
    """What is inside a removed part does not reach its loss's second term."""
    image, regions = volume(GRID, 1, seed=3), labels(GRID, 2, seed=4)
    other = Volume(image.data.copy(), GRID)
    inside = regions.mask("organ_2")
    other.data[0][inside] += 5.0
    model = describe(SmallNet(3, seed=2), window=WINDOW)
    target = ClassTarget("class_1", Everywhere())
    without = []
    for one in (image, other):
        method = Ablation(fill=Inpainted(2.0))
        result = explain(model, one, target, method, regions=regions, compute=DOUBLE)
        assert result.players is not None
        lost = result.players.frame.set_index("player")["value"]["organ_2"]
        without.append(result.targets[0].score - lost)
    assert without[0] == pytest.approx(without[1], rel=1e-9)
    box = Occlusion(size=4, fill=Inpainted(2.0))
    assert np.isfinite(explain(model, image, target, box, compute=DOUBLE)[target.name].values).all()
    with pytest.raises(MethodError, match="inpainting fills a removed part"):
        explain(model, image, target, InputXGradient(Inpainted()))


def test_overlapping_parts_are_not_inpainted() -> None:
    """What surrounds one lies inside the other: it would leak."""
    image, one, two = volume(GRID, 1, seed=3), labels(GRID, 1, seed=4), labels(GRID, 1, seed=9)
    regions = LabelMap.from_masks({"a": one.mask("organ_1"), "b": two.mask("organ_1")}, GRID)
    assert len(regions.layers) > 1
    model = describe(SmallNet(3, seed=2), window=WINDOW)
    with pytest.raises(MethodError, match="these parts overlap"):
        explain(model, image, ALL, Ablation(fill=Inpainted()), regions=regions)
    explain(model, image, ALL, Ablation(fill=MeanImage()), regions=regions)


@pytest.mark.parametrize("method", [Occlusion(size=3, stride=2), Ablation("cubes:12")])
def test_passes_of_a_target_that_is_not_linear(method) -> None:  # type: ignore[no-untyped-def]
    net = Recorder(SmallNet(3, seed=2))
    model = Mirrored([net], axes=(1,), window=WINDOW)
    target = ClassTarget("class_1", Everywhere(), score="margin")
    with open_pipeline(model, volume(GRID, 1, seed=3), DOUBLE) as pipeline:
        question = ask(pipeline, volume(GRID, 1, seed=3), [target], None, seed=0)
        _ = question.regions, question.linear
        told = method.passes(question)
        net.clear()
        method.attribute(question, lambda box, values: None)
        assert net.n_windows == told.n_forward


def test_noise_has_the_images_mean_and_spread_and_its_seed() -> None:
    grid = oblique_grid((20, 21, 22))
    image = volume(grid, 1, seed=3)
    model = describe(Linear([[0.0], [1.0], [0.0]]), window=(20, 21, 22))

    def removed(seed: int) -> float:
        method = InputXGradient(NoiseFill())
        result = explain(model, image, ALL, method, compute=DOUBLE, seed=seed)
        return result.targets[0].score - float(result[ALL.name].total())

    sums = [removed(0), removed(0), removed(1)]
    assert sums[0] == sums[1] != sums[2]
    n = grid.n_voxels
    assert abs(sums[0] / n - image.data.mean()) < 5 * image.data.std() / np.sqrt(n)
    with pytest.raises(MethodError, match="scale of a noise fill"):
        NoiseFill(0.0)


@pytest.mark.parametrize("fill", [MeanImage(), Blurred(4.0), NoiseFill(), Inpainted(3.0)])
def test_every_fill_in_every_game(fill) -> None:  # type: ignore[no-untyped-def]
    image, regions = volume(GRID, 2, seed=3), labels(GRID, 2, seed=4)
    model = describe(SmallNet(3, n_channels=2, seed=2), n_channels=2, window=WINDOW)
    from voxplain.attribution import Shapley

    result = explain(
        model, image, ALL, Shapley("channels*regions", fill=fill), regions=regions, compute=DOUBLE
    )
    assert abs(result.targets[0].gap or 0) < 1e-9 * abs(result.targets[0].score) + 1e-9
