"""Statistics over single voxels' gradients, against full autograd through the stitching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from voxplain.attribution import (
    ClassTarget,
    Gradient,
    GradientMax,
    GradientQuantile,
    Mask,
    SmoothGrad,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.smoothgrad import noisy
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.inference.voxel_gradients import support_voxels, voxel_gradients, voxel_passes
from voxplain.models import Model, wrap
from voxplain.space.box import Box
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Mirrored, Pooled, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")


def lesion(grid, n: int = 12) -> tuple[LabelMap, np.ndarray]:  # type: ignore[no-untyped-def]
    mask = np.zeros(grid.shape, bool)
    middle = tuple(k // 2 for k in grid.shape)
    mask[tuple(slice(m - 1, m + 2) for m in middle)] = True
    where = np.argwhere(mask)[:n]
    mask[:] = False
    mask[tuple(where.T)] = True
    return LabelMap.of(mask, grid), where


def jacobian(model: Model, image: Volume, score: str, where: np.ndarray, draw: int | None = None):
    """∂s_v/∂x of every voxel, one backward pass each, every window and view in one graph."""
    rows = []
    with open_pipeline(model, image, DOUBLE) as pipeline:
        target = ClassTarget("class_1", Mask(labels(image.grid, 2), "organ_1"))
        question = ask(pipeline, image, [target], None, seed=0)
        source = pipeline.clean if draw is None else noisy(question, draw, 0.05, first_channel=True)
        x = source(Box.whole(pipeline.plan.padded_shape)).clone().requires_grad_()
        logits = 0
        for w in range(len(pipeline.plan)):
            place = pipeline.plan.box(w).slices
            for view in range(model.n_views):
                part = torch.zeros((3, *pipeline.plan.padded_shape), dtype=torch.float64)
                own = model.forward(x[(slice(None), *place)][None], view)[0]
                part[(slice(None), *place)] = own * pipeline.share(w)
                logits = logits + part
        assert isinstance(logits, torch.Tensor)
        values = logits[1] if score == "logit" else torch.softmax(logits, 0)[1]
        start = pipeline.plan.inner().start
        for v in where:
            at = tuple(int(a + b) for a, b in zip(v, start, strict=True))
            (found,) = torch.autograd.grad(values[at], x, retain_graph=True)
            rows.append(found[(slice(None), *pipeline.plan.inner().slices)].numpy())
    return np.stack(rows)


CASES = {
    "gaussian": ((5, 9, 12), WindowSettings((4, 6, 6), overlap=0.5, blend="gaussian"), False),
    "constant": ((6, 9, 7), WindowSettings((4, 5, 6), overlap=0.25, blend="constant"), False),
    "views": ((5, 9, 8), WindowSettings((4, 6, 6), overlap=0.25, blend="gaussian"), True),
    "padded": ((3, 9, 8), WindowSettings((4, 6, 6), overlap=0.25, blend="gaussian"), False),
    "flat": ((9, 11), WindowSettings((5, 6), overlap=0.5, blend="gaussian"), False),
}


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("kind", CASES)
def test_maximum_and_quantile_are_those_of_all_gradients(kind: str, score: str) -> None:
    shape, window, views = CASES[kind]
    rank = len(shape)
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[:rank])
    image = volume(grid, 2, seed=7)
    net = SmallNet(rank, n_channels=2, seed=3)
    model = (
        Mirrored([net, SmallNet(rank, 2, seed=4)], axes=(1,), n_channels=2, window=window)
        if views
        else describe(net, rank=rank, n_channels=2, window=window)
    )
    mask, where = lesion(grid, n=7)
    target = ClassTarget("class_1", Mask(mask), score=score)  # type: ignore[arg-type]
    wanted = jacobian(model, image, score, where)
    largest = np.take_along_axis(wanted, np.abs(wanted).argmax(0)[None], 0)[0]
    scale = np.abs(largest).max()
    found = explain(model, image, target, GradientMax(), compute=DOUBLE)[target.name].values
    np.testing.assert_allclose(found, largest, atol=1e-10 * scale)
    for q in (0.0, 0.3, 0.5, 0.9, 1.0):
        method = GradientQuantile(q=q, n=0)
        found = explain(model, image, target, method, compute=DOUBLE)[target.name].values
        np.testing.assert_allclose(found, np.quantile(wanted, q, axis=0), atol=1e-10 * scale)
    # four parts of the mask, in array order
    parts = np.stack([part.sum(0) for part in np.array_split(wanted, 4)])
    method = GradientQuantile(q=0.9, n=4, splits=True)
    found = explain(model, image, target, method, compute=DOUBLE)[target.name].values
    np.testing.assert_allclose(found, np.quantile(parts, 0.9, axis=0), atol=1e-10 * scale)


def test_noisy_copies_are_averaged_after_the_maximum() -> None:
    grid = oblique_grid((5, 9, 8))
    image, net = volume(grid, 2, seed=7), SmallNet(3, 2, seed=3)
    model = describe(net, n_channels=2, window=WindowSettings((4, 6, 6), overlap=0.5))
    mask, where = lesion(grid, n=5)
    mean = np.zeros((2, *grid.shape))
    for draw in range(2):
        wanted = jacobian(model, image, "logit", where, draw)
        mean += np.take_along_axis(wanted, np.abs(wanted).argmax(0)[None], 0)[0] / 2
    method = GradientMax(n=2, noise=0.05, first_channel=True)
    target = ClassTarget("class_1", Mask(mask))
    found = explain(model, image, target, method, compute=DOUBLE)[target.name].values
    np.testing.assert_allclose(found, mean, atol=1e-10 * np.abs(mean).max())


def test_one_voxel_is_the_gradient_itself() -> None:
    grid = oblique_grid((5, 9, 8))
    image = volume(grid, 1, seed=1)
    model = describe(SmallNet(3, seed=3), window=WindowSettings((4, 6, 6), overlap=0.5))
    wanted = explain(model, image, "class:class_1@voxel:2,4,3", Gradient(), compute=DOUBLE)
    name = wanted.targets[0].name
    for method in (GradientMax(), GradientQuantile(q=0.2)):
        found = explain(model, image, "class:class_1@voxel:2,4,3", method, compute=DOUBLE)
        np.testing.assert_allclose(found[name].values, wanted[name].values, atol=1e-12)
    flat = oblique_grid((7, 9), (0.7, 1.1))
    classifier = wrap(
        Pooled(SmallNet(2, seed=1)), kind="classification", classes=("a", "b", "c"),
        channels=("x",), rank=2, check=False,
    )  # fmt: skip
    picture = volume(flat, 1, seed=2)
    one = explain(classifier, picture, "class:b", GradientMax(n=3), compute=DOUBLE)
    two = explain(classifier, picture, "class:b", SmoothGrad(n=3, noise=0.05), compute=DOUBLE)
    np.testing.assert_allclose(one["b"].values, two["b"].values, atol=1e-12)


def test_the_cost_is_that_of_the_lesion_and_drawing_tells_an_error() -> None:
    costs = []
    for n in (12, 40):
        grid = oblique_grid((5, 8, n))
        mask = np.zeros(grid.shape, bool)
        mask[1:4, 1:4, 1:4] = True
        target = ClassTarget("class_1", Mask(LabelMap.of(mask, grid)))
        model = describe(SmallNet(3, seed=3), window=WindowSettings((4, 6, 6), overlap=0.5))
        image = volume(grid, 1, seed=1)
        whole = explain(model, image, target, GradientMax(), regions=labels(grid))
        costs.append(whole.provenance.cost.n_backward)
    assert costs[0] == costs[1]
    drawn = explain(model, image, target, GradientMax(voxels=18), regions=labels(grid))
    errors = drawn.table.frame["share_error"]
    assert (errors > 0).any()
    assert np.isfinite(errors).all()
    name = target.name
    assert (np.abs(drawn[name].values) <= np.abs(whole[name].values) + 1e-6).all()
    assert drawn.provenance.cost.n_backward < costs[1]
    again = explain(model, image, target, GradientMax(voxels=18), regions=labels(grid))
    np.testing.assert_array_equal(again[name].values, drawn[name].values)
    other = explain(model, image, target, GradientMax(voxels=12), regions=labels(grid), seed=1)
    assert np.abs(other[name].values - drawn[name].values).max() > 0


def test_settings_are_checked() -> None:
    for kind, wrong in (
        (GradientQuantile, {"q": 1.1}),
        (GradientQuantile, {"n": -1}),
        (GradientQuantile, {"n": 0, "splits": True}),
        (GradientMax, {"n": -1}),
        (GradientMax, {"noise": 0.0}),
    ):
        with pytest.raises(MethodError):
            kind(**wrong)


class Repeated(torch.autograd.Function):
    """2·x, with a backward pass that cannot be vectorised."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float(2 * gradient.abs().max() / gradient.abs().max())


class Stubborn(torch.nn.Module):
    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(Repeated.apply(x))


def of_units(model: Model, image: Volume, compute: Compute, at_once: int | None):  # type: ignore[no-untyped-def]
    """Gradients of 20 units of two targets, and what the pipeline chose in the end."""
    first = LabelMap.of(lesion(image.grid)[0].layers[0] != 0, image.grid)
    other = np.zeros(image.grid.shape, bool)
    other[2:4, 2:5, 2:4] = True
    targets = [
        ClassTarget("class_1", Mask(first)),
        ClassTarget("class_2", Mask(LabelMap.of(other, image.grid)), label="other"),
    ]
    with open_pipeline(model, image, compute) as pipeline:
        pipeline.cotangents_at_once = at_once
        question = ask(pipeline, image, targets, None, seed=0)
        cotangents = [cotangent for _, cotangent in question.linear]
        units = [
            (t, voxel[None]) for t, c in enumerate(cotangents) for voxel in support_voxels(c)[:12]
        ]
        whole = Box.whole(pipeline.plan.padded_shape)
        found = torch.zeros((len(units), image.n_channels, *whole.shape), dtype=torch.float64)

        def visit(numbers: Sequence[int], box: Box, maps: torch.Tensor) -> None:
            found[(list(numbers), slice(None), *box.slices)] += maps

        before = pipeline.passes.n_backward
        voxel_gradients(pipeline, pipeline.clean, cotangents, units, visit)
        assert pipeline.passes.n_backward - before == voxel_passes(pipeline, units).n_backward
        return found, pipeline.cotangents_at_once


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("at_once", [2, 5, 16])
@pytest.mark.parametrize("views", [False, True])
def test_backward_passes_taken_together_are_those_taken_one_by_one(
    views: bool, at_once: int, checkpointing: bool
) -> None:
    image = volume(oblique_grid((6, 9, 8)), 2, seed=7)
    window = WindowSettings((4, 6, 6), overlap=0.5, blend="gaussian")
    net = SmallNet(3, 2, seed=3)
    model = (
        Mirrored([net, SmallNet(3, 2, seed=4)], axes=(1,), n_channels=2, window=window)
        if views
        else describe(net, n_channels=2, window=window)
    )
    wanted, _ = of_units(model, image, DOUBLE, 1)
    compute = Compute("cpu", "float64", checkpointing=checkpointing)
    found, chosen = of_units(model, image, compute, at_once)
    assert wanted.any()
    assert chosen == at_once
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * wanted.abs().max().item())


def test_a_network_that_cannot_be_vectorised_gets_one_after_another() -> None:
    image = volume(oblique_grid((6, 9, 8)), 2, seed=7)
    window = WindowSettings((4, 6, 6), overlap=0.5, blend="gaussian")
    model = describe(Stubborn(SmallNet(3, 2, seed=3)), n_channels=2, window=window)
    wanted, _ = of_units(model, image, DOUBLE, 1)
    found, chosen = of_units(model, image, DOUBLE, 7)
    assert chosen == 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_at_a_time_on_a_cpu(checkpointing: bool) -> None:
    image = volume(oblique_grid((6, 9, 8)), 1, seed=7)
    model = describe(SmallNet(3, seed=3), window=WindowSettings((4, 6, 6), overlap=0.5))
    sizes: list[int] = []
    real = torch.autograd.grad

    def spy(outputs: object, inputs: object, vectors: torch.Tensor, **how: bool) -> object:
        sizes.append(len(vectors) if how.get("is_grads_batched") else 1)
        return real(outputs, inputs, vectors, **how)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", spy)
        of_units(model, image, Compute("cpu", "float64", checkpointing=checkpointing), None)
        assert set(sizes) == {1}
        of_units(model, image, Compute("cpu", "float64", checkpointing=checkpointing), 3)
    assert max(sizes) == 3


def test_large_maps_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    image = volume(oblique_grid((4, 6, 6)), 2, seed=7)
    model = describe(
        SmallNet(3, 2, seed=3), n_channels=2, window=WindowSettings((4, 6, 6), overlap=0.5)
    )
    of_map = 2 * 4 * 6 * 6 * 8  # bytes
    units = [(0, np.array([[1, 1, i % 6]])) for i in range(20)]
    with open_pipeline(model, image, DOUBLE) as pipeline:
        for n_bytes, n_forward in ((0, 5), (5 * of_map, 4), (6 * of_map - 1, 4), (99 * of_map, 2)):
            monkeypatch.setattr("voxplain.inference.voxel_gradients._MAPS_BYTES", n_bytes)
            assert voxel_passes(pipeline, units) == Passes(n_forward, 20)


def test_a_batch_that_runs_out_of_memory_half_way_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = volume(oblique_grid((6, 9, 8)), 1, seed=7)
    model = describe(SmallNet(3, seed=3), window=WindowSettings((4, 6, 6), overlap=0.5))
    wanted, _ = of_units(model, image, DOUBLE, 1)
    real, calls = torch.autograd.grad, []

    def fail_once(outputs: object, inputs: object, vectors: torch.Tensor, **how: bool) -> object:
        if len(vectors) > 1:  # windows in the batch
            calls.append(len(vectors))
            if len(calls) == 3:
                raise RuntimeError("out of memory")
        return real(outputs, inputs, vectors, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(torch.autograd, "grad", fail_once)
    with pytest.warns(RuntimeWarning, match="out of memory with 4 windows in a pass"):
        found, _ = of_units(model, image, Compute("cpu", "float64", batch_size=4), 1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * wanted.abs().max().item())
