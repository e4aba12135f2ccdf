"""Statistics over gradients of single voxels: order statistics, passes, memory, sampling error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from voxplain.attribution import (
    ClassTarget,
    Difference,
    FunctionTarget,
    GradientMax,
    GradientQuantile,
    Mask,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method
from voxplain.attribution.question import MapSum
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.inference.voxel_gradients import (
    Largest,
    Quantile,
    Statistic,
    support_voxels,
    voxel_gradients,
    voxel_passes,
)
from voxplain.models import Model
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    BoxFilter,
    Constant,
    Linear,
    Mirrored,
    OutOfMemory,
    Recorder,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 7, 11))
WINDOW = WindowSettings((4, 5, 6), overlap=0.5)
WHOLE = Box((2, 3), (6, 8))


def cuboid(*slices: slice, grid: Grid = GRID) -> LabelMap:
    mask = np.zeros(grid.shape, bool)
    mask[slices] = True
    return LabelMap.of(mask, grid)


LESION = cuboid(slice(1, 4), slice(2, 5), slice(3, 8))  # 45 voxels


def filled(statistic: Statistic, n: int, seed: int) -> np.ndarray:
    """Give a statistic n maps in groups on random boxes; return them whole."""
    rng = np.random.default_rng(seed)
    whole = np.zeros((n, 2, *WHOLE.shape))
    done = 0
    while done < n:
        k = min(n - done, int(rng.integers(1, 5)))
        low = [int(rng.integers(a, b)) for a, b in zip(WHOLE.start, WHOLE.stop, strict=True)]
        high = [int(rng.integers(a + 1, b + 1)) for a, b in zip(low, WHOLE.stop, strict=True)]
        box = Box(tuple(low), tuple(high))
        # whole numbers: many are equal, or zero
        values = rng.integers(-3, 4, (k, 2, *box.shape)) * rng.choice([1.0, 0.37])
        whole[done : done + k][(slice(None), slice(None), *box.within(WHOLE))] = values
        statistic.add(box, torch.from_numpy(values))
        done += k
    return whole


@pytest.mark.parametrize("q", [0.0, 0.13, 0.5, 0.77, 0.9, 1.0])
def test_quantile_of_maps_that_reach_a_part(q: float) -> None:
    for n in (1, 2, 5, 11, 30):
        for seed in range(4):
            statistic = Quantile(WHOLE, 2, torch.float64, q=q, n=n)
            whole = filled(statistic, n, seed)
            np.testing.assert_allclose(
                statistic.result().numpy(), np.quantile(whole, q, axis=0), atol=1e-14
            )


def test_largest_of_maps_that_reach_a_part() -> None:
    for seed in range(8):
        statistic = Largest(WHOLE, 2, torch.float64)
        whole = filled(statistic, 9, seed)
        found = statistic.result().numpy()
        np.testing.assert_array_equal(np.abs(found), np.abs(whole).max(0))
        assert ((found == whole.max(0)) | (found == whole.min(0))).all()


@pytest.mark.parametrize("q", [0.2, 0.9, None])
def test_not_a_number_is_not_lost(q: float | None) -> None:
    statistic = (
        Largest(WHOLE, 1, torch.float64)
        if q is None
        else Quantile(WHOLE, 1, torch.float64, q=q, n=20)
    )
    maps = torch.arange(20.0, dtype=torch.float64).reshape(-1, 1, 1, 1)
    maps = maps.expand(-1, 1, *WHOLE.shape).clone()
    maps[3, 0, 1, 2] = torch.nan
    for part in maps.chunk(3):
        statistic.add(WHOLE, part)
    bad = statistic.result().isnan()
    assert bad[0, 1, 2]
    assert int(bad.sum()) == 1


def asked(model: Model, target: Target | list[Target], method: Method) -> Passes:
    """Passes that a method runs, which are those it tells."""
    image = volume(GRID, 1, seed=1)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, target, None, seed=0)
        _ = question.linear
        told = method.passes(question)
        before = pipeline.passes.n_forward, pipeline.passes.n_backward
        recorder = model.module
        assert isinstance(recorder, Recorder)
        recorder.clear()
        method.attribute(question, lambda box, values: None)
        assert recorder.n_windows == told.n_forward == pipeline.passes.n_forward - before[0]
        assert told.n_backward == pipeline.passes.n_backward - before[1]
    return told


def test_a_forward_pass_serves_sixteen_voxels() -> None:
    target = ClassTarget("class_1", Mask(LESION))
    model = describe(Recorder(SmallNet(3, seed=3)), window=GRID.shape)
    assert asked(model, target, GradientMax()) == Passes(3, 45)
    assert asked(model, target, GradientMax(voxels=16)) == Passes(1, 16)
    assert asked(model, target, GradientQuantile(n=17)) == Passes(2, 17)
    assert asked(model, target, GradientQuantile(n=0)) == Passes(3, 45)
    assert asked(model, target, GradientQuantile(n=5, splits=True)) == Passes(1, 5)
    assert asked(model, target, GradientQuantile(n=100, splits=True)) == Passes(3, 45)
    assert asked(model, target, GradientMax(n=2, noise=0.2)) == Passes(6, 90)


def test_voxels_of_several_targets_share_a_forward_pass() -> None:
    targets: list[Target] = [
        ClassTarget("class_1", Mask(cuboid(slice(1, 3), slice(2, 4), slice(3, 4))), label="four"),
        ClassTarget("class_2", Mask(cuboid(slice(2, 3), slice(5, 7), slice(8, 11))), label="six"),
    ]
    model = describe(Recorder(SmallNet(3, seed=3)), window=GRID.shape)
    assert asked(model, targets, GradientMax(n=2, noise=0.1)) == Passes(2, 20)
    assert asked(model, targets, GradientQuantile(n=0)) == Passes(2, 10)
    image = volume(GRID, 1, seed=1)
    method = GradientMax(n=2, noise=0.1, voxels=3)
    both = explain(model, image, targets, method, compute=DOUBLE)
    for target in targets:
        alone = explain(model, image, target, GradientMax(n=2, noise=0.1), compute=DOUBLE)
        found = explain(model, image, targets, GradientMax(n=2, noise=0.1), compute=DOUBLE)
        name = target.name
        np.testing.assert_array_equal(found[name].values, alone[name].values)
        assert (np.abs(both[name].values) <= np.abs(alone[name].values) * (1 + 1e-12)).mean() > 0.5


def test_errors_of_drawn_voxels_cover_what_all_voxels_give() -> None:
    """Shares over drawn voxels ± 2.5 errors hold those over all, in 9 of 10 regions at least."""
    image, regions = volume(GRID, 2, seed=1), labels(GRID, 4, seed=2)
    target = ClassTarget("class_1", Mask(cuboid(slice(0, 5), slice(1, 6), slice(1, 10))))
    n_held = n_all = 0
    for seed in range(6):
        model = describe(SmallNet(3, 2, seed=seed), n_channels=2, window=GRID.shape)
        whole = explain(model, image, target, GradientMax(), regions=regions, compute=DOUBLE)
        wanted = whole.table.frame["share"].to_numpy()
        for draw in range(4):
            some = explain(
                model, image, target, GradientMax(voxels=40), regions=regions, seed=draw,
                compute=DOUBLE,
            )  # fmt: skip
            frame = some.table.frame
            error = frame["share_error"].to_numpy()
            assert (error > 0).all()
            n_held += int((np.abs(frame["share"] - wanted) <= 2.5 * error).sum())
            n_all += len(frame)
    assert n_held >= 0.9 * n_all


@pytest.mark.parametrize("method", [GradientMax(n=2, voxels=9), GradientQuantile(n=9)])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_passes_with_windows_and_moving_targets(method: Method, score: str) -> None:
    model = describe(Recorder(SmallNet(3, seed=3)), window=WINDOW)
    targets: list[Target] = [
        ClassTarget("class_1", Mask(LESION), score=score),  # type: ignore[arg-type]
        ClassTarget("class_2", Mask(cuboid(slice(0, 2), slice(0, 2), slice(0, 3)))),
    ]
    assert asked(model, targets, method).n_forward > 0


TARGETS: dict[str, Target] = {
    "mean": ClassTarget("class_1", Mask(LESION), reduction="mean"),
    "margin": ClassTarget("class_2", Mask(LESION), score="margin"),
    "log_odds": ClassTarget("class_1", Mask(LESION), score="log_odds"),
    "dice": ClassTarget("class_1", Mask(LESION), reduction="dice"),
    "difference": Difference(
        ClassTarget("class_1", Mask(LESION)),
        ClassTarget("class_2", Mask(LESION), score="probability"),
    ),
    "function": FunctionTarget(lambda L: (L[1] * L[2]).mean().tanh(), "product"),
}


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_parts_add_up_to_the_gradient(kind: str, views: bool) -> None:
    """Whatever the target and however the voxels are grouped, with overlap, views and padding."""
    net, window = SmallNet(3, 2, seed=3), WindowSettings((6, 5, 6), overlap=0.4, pad_value=0.3)
    model = (
        Mirrored([net], axes=(1,), n_channels=2, window=window)
        if views
        else describe(net, n_channels=2, window=window)
    )
    image = volume(GRID, 2, seed=1)
    rng = np.random.default_rng(5)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, [TARGETS[kind]], None, seed=0)
        whole, sums = MapSum(question), MapSum(question)
        question.gradient(pipeline.clean, whole.add)
        ((_, cotangent),) = question.linear
        voxels = support_voxels(cotangent)
        places = np.sort(rng.choice(np.arange(1, len(voxels)), 20, replace=False))
        units = np.array_split(rng.permutation(voxels), places)
        before = pipeline.passes.n_forward, pipeline.passes.n_backward
        seen: list[int] = []

        def visit(numbers: Sequence[int], box: Box, maps: torch.Tensor) -> None:
            seen.extend(numbers)
            sums.add(box, maps.sum(0, keepdim=True))

        owned = [(0, unit) for unit in units]
        voxel_gradients(pipeline, pipeline.clean, [cotangent], owned, visit)
        assert sorted(seen) == list(range(21))
        told = voxel_passes(pipeline, owned)
        assert pipeline.passes.n_forward - before[0] == told.n_forward
        assert pipeline.passes.n_backward - before[1] == told.n_backward
        scale = float(whole.values.abs().max())
        assert scale > 0
        torch.testing.assert_close(sums.values, whole.values, rtol=0, atol=1e-11 * scale)


def test_box_filter_in_closed_form() -> None:
    """∂logit(v)/∂x(u) is w where u − v is in the box: the maximum is w on the grown mask."""
    model = describe(BoxFilter([0.0, -2.0, 1.0], (1, 0, 2), (0, 1, 1)), window=GRID.shape)
    image = volume(GRID, 1, seed=1)
    mask = LESION.layers[0] > 0
    covers = np.zeros(GRID.shape)
    for v in np.argwhere(mask):
        low, high = v - np.array([1, 0, 2]), v + np.array([1, 2, 2])
        covers[tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))] += 1
    target = ClassTarget("class_1", Mask(LESION))
    found = explain(model, image, target, GradientMax(), compute=DOUBLE)[target.name].values[0]
    np.testing.assert_allclose(found, -2.0 * (covers > 0), atol=1e-14)
    lowest = GradientQuantile(q=0.12, n=0)  # place 5.28 of 0 to 44
    found = explain(model, image, target, lowest, compute=DOUBLE)[target.name].values[0]
    wanted = np.where(covers >= 7, -2.0, np.where(covers == 6, -2.0 * (1 - 0.28), 0.0))
    np.testing.assert_allclose(found, wanted, atol=1e-13)
    assert {4, 6, 8} <= set(covers.ravel())


def test_a_mean_is_the_sum_over_the_number_of_voxels() -> None:
    model, image = describe(SmallNet(3, seed=3), window=WINDOW), volume(GRID, 1, seed=1)
    for method in (GradientMax(voxels=9), GradientQuantile(n=9)):
        total, mean = (
            explain(model, image, target, method, compute=DOUBLE)[target.name].values
            for target in (
                ClassTarget("class_1", Mask(LESION), label="lesion"),  # names decide the draw
                ClassTarget("class_1", Mask(LESION), reduction="mean", label="lesion"),
            )
        )
        np.testing.assert_allclose(45 * mean, total, atol=1e-12)


@pytest.mark.filterwarnings("ignore:out of memory with:RuntimeWarning")
@pytest.mark.parametrize("method", [GradientMax(n=1), GradientQuantile(n=20)])
def test_a_batch_that_runs_out_of_memory_is_counted_once(method: Method) -> None:
    image, target = volume(GRID, 1, seed=1), ClassTarget("class_1", Mask(LESION))
    results = []
    for limit in (99, 1):
        model = describe(OutOfMemory(SmallNet(3, seed=3), limit), window=WINDOW)
        compute = Compute("cpu", "float64", batch_size=4)
        results.append(explain(model, image, target, method, compute=compute))
    one, two = results
    np.testing.assert_allclose(one[target.name].values, two[target.name].values, atol=1e-13)
    assert one.provenance.cost.n_backward == two.provenance.cost.n_backward


def test_memory_that_fails_within_the_backward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first voxels of a batch gave is not added twice."""
    model = describe(SmallNet(3, seed=3), window=WINDOW)
    image, target = volume(GRID, 1, seed=1), ClassTarget("class_1", Mask(LESION))
    compute = Compute("cpu", "float64", batch_size=4)
    wanted = explain(model, image, target, GradientMax(), compute=compute)
    grad, left = torch.autograd.grad, [3]

    def failing(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("out of memory on purpose")
        return grad(*args, **more)

    monkeypatch.setattr(torch.autograd, "grad", failing)
    with pytest.warns(RuntimeWarning, match="out of memory with"):
        found = explain(model, image, target, GradientMax(), compute=compute)
    assert left[0] < 0
    np.testing.assert_allclose(found[target.name].values, wanted[target.name].values, atol=1e-13)


def columns(result: Explanation) -> tuple[np.ndarray, np.ndarray]:
    frame = result.table.frame
    return frame["share"].to_numpy(), frame["share_error"].to_numpy()


@pytest.mark.parametrize("method", [GradientQuantile(n=24), GradientMax(voxels=24)])
def test_the_error_is_the_scatter_of_draws(method: Method) -> None:
    small = oblique_grid((5, 6, 7))
    mask = cuboid(slice(0, 5), slice(1, 6), slice(2, 6), grid=small)  # 100 voxels
    model = describe(SmallNet(3, seed=3), window=small.shape)
    image, target = volume(small, 1, seed=2), ClassTarget("class_1", Mask(mask))
    shares, errors = [], []
    for seed in range(20):
        share, error = columns(
            explain(model, image, target, method, regions=labels(small), seed=seed)
        )
        shares.append(share)
        errors.append(error)
    scatter = np.sqrt(np.stack(shares).var(0, ddof=1).mean())
    told = np.sqrt((np.stack(errors) ** 2).mean())
    assert scatter > 0
    assert 0.5 < told / scatter < 2.5


def test_the_error_knows_how_much_of_the_mask_was_drawn() -> None:
    """A voxelwise network: a share is that of a region among the voxels drawn, each once."""
    small = oblique_grid((5, 6, 7))
    mask = cuboid(slice(0, 5), slice(1, 6), slice(2, 6), grid=small)  # 100 voxels
    half = cuboid(slice(0, 5), slice(0, 6), slice(0, 4), grid=small)  # holds 50 of them
    model = describe(Linear([[1.0], [2.0], [3.0]]), window=small.shape)
    image, target = volume(small, 1, seed=2), ClassTarget("class_1", Mask(mask))
    told = []
    for seed in range(20):
        method = GradientMax(voxels=80)
        result = explain(model, image, target, method, regions=half, seed=seed)
        assert int((result[target.name].values != 0).sum()) == 80
        told.append(columns(result)[1])
    true = np.sqrt(0.5 * 0.5 / 80 * (100 - 80) / (100 - 1))
    assert 0.6 < np.sqrt((np.stack(told) ** 2).mean()) / true < 1.5


def test_no_error_where_nothing_is_drawn() -> None:
    model, image = describe(SmallNet(3, seed=3), window=WINDOW), volume(GRID, 1, seed=1)
    target, few = ClassTarget("class_1", Mask(LESION)), cuboid(slice(1, 3), slice(1, 3), slice(2))
    every_voxel: list[Method] = [
        GradientMax(voxels=45), GradientQuantile(n=0), GradientQuantile(n=9, splits=True),
    ]  # fmt: skip
    for all_of in every_voxel:
        whole = explain(model, image, target, all_of, regions=labels(GRID))
        assert "share_error" not in whole.table.frame
    same = explain(model, image, target, GradientQuantile(n=45), regions=labels(GRID))
    every = explain(model, image, target, GradientQuantile(n=0), regions=labels(GRID))
    np.testing.assert_array_equal(same[target.name].values, every[target.name].values)
    # a mask that is taken whole, beside one that is drawn from
    both = [target, ClassTarget("class_2", Mask(few))]
    frame = explain(model, image, both, GradientMax(voxels=16), regions=labels(GRID)).table.frame
    drawn = frame["target"] == target.name
    assert (frame["share_error"][drawn] > 0).any()
    assert (frame["share_error"][~drawn] == 0).all()
    # too few to tell
    frame = explain(model, image, target, GradientMax(voxels=15), regions=labels(GRID)).table.frame
    assert frame["share_error"].isna().all()


def test_a_network_without_a_gradient_is_refused() -> None:
    model = describe(Constant([1.0, 2.0, 3.0], is_connected=False), window=WINDOW)
    target = ClassTarget("class_1", Mask(LESION))
    with pytest.raises(ModelError, match="do not depend on the input"):
        explain(model, volume(GRID, 1), target, GradientMax())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientQuantile(q=-0.1), "q is a share from 0 to 1, got -0.1"),
        (lambda: GradientQuantile(q=float("nan")), "q is a share from 0 to 1, got nan"),
        (lambda: GradientQuantile(n=-2), "n is a number of voxels, 0 for all"),
        (lambda: GradientQuantile(n=0, splits=True), "of parts: at least 1.*got 0"),
        (lambda: GradientMax(voxels=-1), "at least 0, got n=0, voxels=-1"),
        (lambda: GradientMax(noise=10.0), "0 < noise < 10; got 10.0"),
    ],
)
def test_settings_say_what_they_expect(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make()
