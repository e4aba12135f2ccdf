"""Random removals: the naive way, passes, closed forms, captum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from voxplain.assess.faithfulness_correlation import (
    AGG2EXP,
    METRICS,
    faithfulness_correlation,
)
from voxplain.assess.infidelity import METRICS as INFIDELITY
from voxplain.assess.infidelity import RAW_METRICS, infidelity, raw_infidelity
from voxplain.assess.removal import Remover
from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    Gradient,
    Inpainted,
    InputXGradient,
    Mask,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Constant, MeanImage
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.attribution.targets import Difference
from voxplain.attribution.where import Predicted
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.models import Model, wrap
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, NO_CHANGE
from voxplain.space.labelmap import LabelMap
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Constant as ConstantNet,
)
from voxplain.testing.models import (
    Linear,
    Mirrored,
    Pooled,
    Recorder,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
FLAT = oblique_grid((9, 11), (0.7, 1.1))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")
KINDS = ("voxels", "regions", "supervoxels:9")


def given(values: np.ndarray) -> Maps:
    return Maps(values, "contribution", Outcome(), Passes(), 0.0)


def naive_drops(question: Question, masks: list[np.ndarray], fill: float) -> np.ndarray:
    """One whole prediction a run."""
    pipeline = question.pipeline
    clean = np.array([value for value, _ in question.linear])
    found = []
    for mask in masks:
        data = np.where(mask, fill, pipeline.image.data)
        other = question.on(pipeline.changed(data))
        found.append(clean - np.array([value for value, _ in other.linear]))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("views", [False, True])
def test_drops_are_those_of_whole_predictions_and_passes_are_told_before(
    kind: str, score: str, views: bool
) -> None:
    net = SmallNet(3, n_channels=2, seed=2)
    settings = {"n_channels": 2, "window": WINDOW}
    model = Mirrored([net], axes=(1,), **settings) if views else describe(net, **settings)
    image = volume(GRID, 2, seed=3)
    part = np.zeros(GRID.shape, bool)
    part[1:3, :4, 2:5] = True
    wanted = [
        ClassTarget("class_1", score=score),  # type: ignore[arg-type]
        ClassTarget("class_2", Mask(LabelMap.of(part, GRID)), score=score),  # type: ignore[arg-type]
        ClassTarget("class_1", Everywhere(), score=score, reduction="mean"),  # type: ignore[arg-type]
    ]
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, wanted, labels(GRID), seed=0)
        _ = question.linear
        remover = Remover(question, kind, n_runs=5, fill=Constant(-0.5))
        told = remover.passes().n_forward
        before = pipeline.passes.n_forward
        removals = remover.run()
        assert pipeline.passes.n_forward - before == told
        masks = [removals.mask(run) for run in range(5)]
        expected = naive_drops(question, masks, -0.5)
        maps = compute_maps(question, Gradient())
        change = image.data.astype(np.float64) + 0.5
        np.testing.assert_array_equal(removals.change, change)
    np.testing.assert_allclose(removals.drops, expected, atol=1e-9)
    assert np.abs(expected).max(axis=0).min() > 1e-3
    signed = maps.signed()
    np.testing.assert_allclose(
        removals.sums(maps), [[one[mask].sum() for one in signed] for mask in masks], atol=1e-9
    )
    times = (maps.values * change).sum(axis=1)
    np.testing.assert_allclose(
        removals.sums(maps, times_change=True),
        [[one[mask].sum() for one in times] for mask in masks],
        atol=1e-9,
    )


def test_only_windows_that_reach_a_target_are_run() -> None:
    net = Recorder(SmallNet(3, seed=2))
    image = volume(GRID, seed=3)
    corner = np.zeros(GRID.shape, bool)
    corner[0, 0, 0] = True
    target = ClassTarget("class_1", Mask(LabelMap.of(corner, GRID)))
    with open_pipeline(describe(net, window=WINDOW), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, target, labels(GRID), seed=0)
        _ = question.linear
        net.clear()
        Remover(question, n_runs=7).run()
        assert net.n_windows == 7
        net.clear()
        removals = Remover(question, "regions", n_runs=30).run()
        near = pipeline.plan.box(0).slices
        contents = {removals.mask(run)[near].tobytes() for run in range(30)}
        assert net.n_windows <= 1 + len(contents) < 30


@pytest.mark.parametrize("kind", KINDS)
def test_subsets_have_one_size_and_do_not_depend_on_their_number_or_on_batches(kind: str) -> None:
    image = volume(GRID, seed=3)
    regions = labels(GRID)
    runs = []
    for n_runs, batch in ((4, 1), (20, 3)):
        model = describe(SmallNet(3, seed=2), window=WINDOW)
        with open_pipeline(model, image, Compute("cpu", "float64", batch)) as pipeline:
            question = ask(pipeline, image, "class:class_1", regions, seed=5)
            runs.append(Remover(question, kind, n_runs=n_runs).run())
    few, many = runs
    np.testing.assert_array_equal(few.removed, many.removed[:4])
    np.testing.assert_allclose(few.drops, many.drops[:4], atol=1e-10)
    for row in many.removed:
        assert len(np.unique(row)) == len(row)
    n_voxels = int(np.prod(GRID.shape))
    if kind == "voxels":
        assert many.removed.shape[1] == n_voxels // 8
        assert all(many.mask(run).sum() == n_voxels // 8 for run in range(20))
        assert any(len(set(a) & set(b)) < len(a) for a, b in pairwise(many.removed.tolist()))
    if kind == "regions":
        assert many.removed.shape[1] == 2  # three organs and background
        assert len({tuple(sorted(row)) for row in many.removed.tolist()}) > 3


def test_regions_that_overlap_are_removed_whole_and_summed_once() -> None:
    layers = np.zeros((2, *FLAT.shape), np.uint8)
    layers[0, :5, :7] = 1
    layers[1, 3:, 4:] = 2
    regions = LabelMap(layers, FLAT, {0: "background", 1: "a", 2: "b"})
    image = volume(FLAT, 2, seed=1)
    net = SmallNet(2, n_channels=2, seed=2)
    model = describe(net, rank=2, n_channels=2, window=(4, 5))
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ClassTarget("class_1", Everywhere()), regions, seed=0)
        removals = Remover(question, "regions", n_runs=12, n_removed=2).run()
        masks = [removals.mask(run) for run in range(12)]
        expected = naive_drops(question, masks, 0.0)
    a, b = layers[0] == 1, layers[1] == 2
    possible = {(a | b).tobytes(), (~a | ~b).tobytes(), (~b).tobytes(), (~a).tobytes()}
    possible |= {(~(b & ~a)).tobytes(), (~(a & ~b)).tobytes()}
    assert {mask.tobytes() for mask in masks} <= possible
    assert (a | b).tobytes() in {mask.tobytes() for mask in masks}
    np.testing.assert_allclose(removals.drops, expected, atol=1e-9)
    ones = given(np.ones((1, 1, *FLAT.shape)))
    np.testing.assert_array_equal(removals.sums(ones)[:, 0], [mask.sum() for mask in masks])


def test_masks_taken_anew_are_those_of_the_perturbed_prediction() -> None:
    image = volume(GRID, seed=3)
    net = SmallNet(3, seed=2)
    other = ClassTarget("class_2", Everywhere())
    wanted = [
        ClassTarget("class_1"),
        Difference(ClassTarget("class_1"), other),
        ClassTarget("class_2", reduction="weighted"),
    ]
    with open_pipeline(describe(net, window=WINDOW), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, wanted, None, seed=0)
        _ = question.linear, question.prediction_logits
        remover = Remover(question, n_runs=4, anew=wanted)
        told = remover.passes().n_forward
        assert told == 4 * len(pipeline.plan)
        before = pipeline.passes.n_forward
        removals = remover.run()
        assert pipeline.passes.n_forward - before == told
        assert removals.anew is not None
        for run in range(4):
            data = np.where(removals.mask(run), 0, image.data)
            inner = pipeline.inner
            changed = pipeline.changed(data)
            clean = question.prediction_logits.numpy()
            new = changed.logits(changed.clean, inner).numpy()
            terms = [(clean, clean.argmax(0) == 1), (new, new.argmax(0) == 1)]
            before_it, after = (float(logits[1][mask].sum()) for logits, mask in terms)
            held = before_it - float(new[1][terms[0][1]].sum())
            all_2 = float(clean[2].sum() - new[2].sum())
            np.testing.assert_allclose(removals.anew[run, 0], before_it - after, atol=1e-9)
            np.testing.assert_allclose(removals.drops[run, 0], held, atol=1e-9)
            np.testing.assert_allclose(removals.anew[run, 1], before_it - after - all_2, atol=1e-9)
        np.testing.assert_allclose(removals.anew[:, 2], removals.drops[:, 2], atol=1e-9)
        assert np.abs(removals.anew[:, 0] - removals.drops[:, 0]).max() > 1e-3
        assert question.targets[0].is_fixed
        assert wanted[0].where == Predicted()


def test_a_linear_model_is_explained_perfectly_by_input_times_gradient() -> None:
    rng = np.random.default_rng(1)
    image = volume(GRID, 2, seed=1)
    model = describe(Linear(rng.normal(size=(3, 2))), n_channels=2, window=WINDOW)
    wanted = [ClassTarget("class_1", Everywhere()), ClassTarget("class_2")]
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, wanted, labels(GRID), seed=0)
        product = compute_maps(question, InputXGradient())
        gradient = compute_maps(question, Gradient())
        for kind in KINDS:
            removals = Remover(question, kind, n_runs=20).run()
            sums, drops = removals.sums(product), removals.drops
            times = removals.sums(gradient, times_change=True)
            np.testing.assert_allclose(times, sums, atol=1e-9)
            for t in range(2):
                one, drop, least = sums[:, t], drops[:, t], removals.least(t)
                assert faithfulness_correlation(one, drop, least).value == pytest.approx(
                    1, abs=1e-9
                )
                assert faithfulness_correlation(-3 * one, drop).value == pytest.approx(-1, abs=1e-9)
                assert infidelity(7 * one, drop, least).value == pytest.approx(0, abs=1e-12)
                assert raw_infidelity(one, drop).value == pytest.approx(0, abs=1e-12)
                assert raw_infidelity(one + 2, drop).value == pytest.approx(4)
        many = Remover(question, n_runs=400).run()
        noise = given(rng.normal(size=(2, 1, *GRID.shape)))
        for t in range(2):
            value, flags = faithfulness_correlation(many.sums(noise)[:, t], many.drops[:, t])
            assert abs(value) < 4 / np.sqrt(400)
            assert flags == ()


def test_maps_that_say_nothing_and_targets_that_do_not_drop() -> None:
    image = volume(GRID, seed=1)
    net = SmallNet(3, seed=2)
    with open_pipeline(describe(net, window=WINDOW), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ClassTarget("class_1", Everywhere()), None, seed=0)
        removals = Remover(question, n_runs=10).run()
    drops, least = removals.drops[:, 0], removals.least(0)
    constant = removals.sums(given(np.full((1, 1, *GRID.shape), 0.1)))[:, 0]
    empty = removals.sums(given(np.zeros((1, 1, *GRID.shape))))[:, 0]
    value, flags = faithfulness_correlation(constant, drops, least)
    assert np.isnan(value)
    assert flags == (CONSTANT_MAP,)
    value, flags = faithfulness_correlation(empty, drops, least)
    assert np.isnan(value)
    assert flags == (EMPTY_MAP,)
    assert infidelity(empty, drops, least) == (1.0, (EMPTY_MAP,))
    value, flags = infidelity(constant, drops, least)
    assert value == pytest.approx(drops.var() / np.mean(drops**2))
    assert flags == (CONSTANT_MAP,)
    assert raw_infidelity(empty, drops) == (pytest.approx(np.mean(drops**2)), (EMPTY_MAP,))

    still = ConstantNet([1.0, 2.0, 3.0])
    with open_pipeline(describe(still, window=WINDOW), image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, ClassTarget("class_1", Everywhere()), None, seed=0)
        removals = Remover(question, n_runs=10).run()
        one = Remover(question, "regions", n_runs=3).run()
    sums = np.arange(10.0)
    for metric in (faithfulness_correlation, infidelity):
        value, flags = metric(sums, removals.drops[:, 0], removals.least(0))
        assert np.isnan(value)
        assert flags == (NO_CHANGE,)
    assert one.mask(0).all()  # the only class predicted is everywhere
    value, flags = infidelity(np.full(3, 2.0), np.full(3, 5.0))
    assert np.isnan(value)
    assert flags == (NO_CHANGE,)


@pytest.mark.parametrize("normalised", [False, True])
def test_captum(normalised: bool) -> None:
    from captum.metrics import infidelity as captum_infidelity

    image = volume(GRID, 2, seed=4)
    net = SmallNet(3, n_channels=2, seed=4)
    model = describe(net, n_channels=2, window=GRID.shape)
    n = 6
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ClassTarget("class_1", Everywhere()), None, seed=0)
        removals = Remover(question, n_runs=n, fill=MeanImage()).run()
        contribution = compute_maps(question, InputXGradient())
        sensitivity = compute_maps(question, Gradient())
    masks = torch.from_numpy(np.array([removals.mask(run) for run in range(n)]))[:, None]
    net.double()
    change = torch.from_numpy(removals.change)

    def value(batch: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(net(batch)[:, 1].flatten(1).sum(1))

    for maps, is_by_change in ((contribution, False), (sensitivity, True)):

        def perturb(x: torch.Tensor, by: bool = is_by_change) -> tuple[torch.Tensor, torch.Tensor]:
            removed = (masks * change).to(x.dtype)
            return (removed if by else masks.expand_as(x).to(x.dtype)), x - removed

        theirs = captum_infidelity(
            value, perturb, torch.from_numpy(image.data).double()[None],
            torch.from_numpy(maps.values), n_perturb_samples=n, normalize=normalised,
        )  # fmt: skip
        sums = removals.sums(maps, times_change=is_by_change)[:, 0]
        drops = removals.drops[:, 0]
        if normalised:
            ours = infidelity(sums, drops).value * np.mean(drops**2)
        else:
            ours = raw_infidelity(sums, drops).value
        np.testing.assert_allclose(ours, float(theirs), rtol=1e-6)


def classifier() -> Model:
    return wrap(
        Pooled(SmallNet(2, seed=4)), kind="classification", classes=("a", "b", "c"),
        channels=("x",), rank=2, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_classifier(kind: str) -> None:
    image = volume(FLAT, seed=4)
    wanted = [ClassTarget("b"), ClassTarget("c")]
    with open_pipeline(classifier(), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, wanted, labels(FLAT), seed=0)
        removals = Remover(question, kind, n_runs=4, anew=wanted).run()
        expected = naive_drops(question, [removals.mask(run) for run in range(4)], 0.0)
    np.testing.assert_allclose(removals.drops, expected, atol=1e-10)
    np.testing.assert_allclose(removals.anew, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("cubes:9", {}, "voxels, regions or supervoxels:N"),
        ("regions:3", {}, "voxels, regions or supervoxels:N"),
        ("supervoxels", {}, "players are"),
        ("voxels", {"n_runs": 2}, "at least 3"),
        ("voxels", {"n_removed": 99}, "from 1 to 98"),
        ("regions", {"n_removed": 0}, "from 1 to 3"),
        ("voxels", {"fill": Inpainted()}, "inpainting"),
        ("voxels", {"anew": ()}, "1 targets were expected"),
    ],
)
def test_settings_out_of_range(kind: str, settings: dict[str, object], words: str) -> None:
    image = volume(FLAT, seed=4)
    with open_pipeline(classifier(), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, "class:b", labels(FLAT), seed=0)
        with pytest.raises(MethodError, match=words):
            Remover(question, kind, **settings)  # type: ignore[arg-type]


def test_maps_of_another_image_are_refused() -> None:
    image = volume(FLAT, seed=4)
    with open_pipeline(classifier(), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, "class:b", labels(FLAT), seed=0)
        removals = Remover(question, "regions", n_runs=3, fill=Inpainted()).run()
    with pytest.raises(MethodError, match="compute them for this question"):
        removals.sums(given(np.zeros((2, 1, *FLAT.shape))))
    assert replace(removals, clean=np.array([-8.0])).least(0) == pytest.approx(8e-6)


def test_names() -> None:
    names = [one.name for one in (*METRICS.values(), *INFIDELITY.values(), *RAW_METRICS.values())]
    assert names[0] == "faithfulness_correlation"
    assert AGG2EXP.name == "faithfulness_correlation_agg2exp"
    assert len(set(names)) == 9
