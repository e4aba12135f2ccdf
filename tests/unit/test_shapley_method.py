"""Shapley values of image parts: closed forms, sampling, passes, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    Gradient,
    InputXGradient,
    Mask,
    Owen,
    Shapley,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method
from voxplain.attribution.players import players_of
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Failing,
    Linear,
    Mirrored,
    Pooled,
    Product,
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


def values(result: Explanation) -> np.ndarray:
    assert result.players is not None
    return result.players.matrix().to_numpy()


def test_linear_agrees_with_input_times_gradient() -> None:
    rng = np.random.default_rng(5)
    image = volume(GRID, 2, seed=1)
    regions = labels(GRID, 3, seed=4)
    model = describe(Linear(rng.normal(size=(3, 2))), n_channels=2, window=WINDOW)
    own = explain(model, image, ALL, Shapley(), regions=regions, compute=DOUBLE)
    other = explain(model, image, ALL, InputXGradient(), regions=regions, compute=DOUBLE)
    frame = other.table.frame
    sums = (frame["positive"] + frame["negative"]).groupby(frame["region"], sort=False).sum()
    np.testing.assert_allclose(values(own)[0], sums.to_numpy(), rtol=1e-10)
    each = explain(model, image, ALL, Shapley("channels*regions"), regions=regions, compute=DOUBLE)
    own_frame = each.table.frame
    np.testing.assert_allclose(
        own_frame["positive"] + own_frame["negative"],
        frame["positive"] + frame["negative"],
        rtol=1e-9,
        atol=1e-9,
    )


def test_channels_share_a_product_in_halves() -> None:
    image = volume(GRID, 2, seed=1)
    model = describe(Product([0.0, 1.5, -1.0]), n_channels=2, window=WINDOW)
    result = explain(model, image, ALL, Shapley("channels", interactions=True), compute=DOUBLE)
    score = result.targets[0].score
    np.testing.assert_allclose(values(result), [[score / 2, score / 2]], rtol=1e-12)
    assert result.players is not None
    pairs = result.players.interactions(ALL.name).to_numpy()
    np.testing.assert_allclose(pairs[0, 1], score, rtol=1e-12)  # neither alone gives anything


def test_step_has_no_gradient_but_shapley_values() -> None:
    image, regions = volume(GRID, 1, seed=3), labels(GRID, 2, seed=4)
    model = describe(Step([0.0, 2.0, 1.0], threshold=0.5), window=WINDOW)
    gradient = explain(model, image, ALL, Gradient(), regions=regions, compute=DOUBLE)
    assert np.abs(gradient[ALL.name].values).max() == 0
    result = explain(model, image, ALL, Shapley(), regions=regions, compute=DOUBLE)
    bright = image.data[0] > 0.5
    wanted = [2.0 * bright[regions.mask(name)].sum() for name in regions.names.values()]
    np.testing.assert_allclose(values(result)[0], wanted, atol=1e-9)


def test_classifier_in_two_dimensions() -> None:
    grid = oblique_grid((7, 9), (0.7, 1.1))
    image, regions = volume(grid, 1, seed=2), labels(grid, 3, seed=1)
    net = Pooled(SmallNet(2, n_classes=3, seed=4))
    model = wrap(net, kind="classification", classes=("a", "b", "c"), channels=["x"], rank=2)
    for score in ("logit", "margin"):
        target = ClassTarget("b", score=score)  # type: ignore[arg-type]
        result = explain(model, image, target, Shapley(), regions=regions, compute=DOUBLE)
        black = Volume(np.zeros_like(image.data), grid)
        nothing = explain(model, black, target, Gradient(), compute=DOUBLE).targets[0].score
        change = result.targets[0].score - nothing
        assert values(result).sum() == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize(
    "method", [Shapley(), Shapley(exact=1, samples=28), Owen("a=organ_1+organ_3")]
)
def test_passes_told_are_run(method: Method, views: bool, score: str) -> None:
    net = Recorder(SmallNet(3, n_channels=2, seed=1))
    model: Model = (
        Mirrored([net], axes=(0,), n_channels=2, window=WINDOW)
        if views
        else describe(net, n_channels=2, window=WINDOW)
    )
    image, regions = volume(GRID, 2, seed=1), labels(GRID, 5, seed=4)
    targets = [ClassTarget("class_1", score=score), ClassTarget("class_2", score=score)]  # type: ignore[arg-type]
    with open_pipeline(model, image, Compute("cpu", batch_size=2)) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        _ = question.regions, question.linear
        told = method.passes(question)
        net.clear()
        method.attribute(question, lambda box, values: None)
        assert net.n_windows == told.n_forward
        assert told.n_backward == 0


def test_sampling_is_close_and_says_how_close() -> None:
    image = volume(GRID, 1, seed=3)
    net = SmallNet(3, seed=9)
    net.first.weight.data *= 3  # strongly non-linear
    model = describe(net, window=(5, 9, 13))
    exact = values(explain(model, image, ALL, Shapley("cubes:10"), compute=DOUBLE))
    assert exact.shape[1] > 8
    scores = []
    for seed in range(6):
        result = explain(
            model, image, ALL, Shapley("cubes:10", exact=2, samples=60), compute=DOUBLE, seed=seed
        )
        assert result.players is not None
        errors = result.players.frame["error"].to_numpy()
        assert (errors > 0).any()
        difference = values(result)[0] - exact[0]
        scores.append(np.sqrt(np.mean(difference**2) / np.mean(errors**2)))
        assert abs(result.targets[0].gap or 0) < 1e-9
    assert 0.3 < np.mean(scores) < 2.0


def test_tolerance_draws_until_it_is_met() -> None:
    image = volume(GRID, 1, seed=3)
    net = SmallNet(3, seed=9)
    net.first.weight.data *= 3
    model = describe(net, window=(5, 9, 13))
    once = Shapley("cubes:30", exact=2, samples=128)
    first = explain(model, image, ALL, once, compute=DOUBLE)
    assert first.players is not None
    worst = first.players.frame["error"].max() / np.abs(values(first)).sum()
    loose = replace(once, tolerance=worst * 0.9, max_samples=128 * 16)
    tight = replace(once, tolerance=worst * 1e-3, max_samples=512)
    one = explain(model, image, ALL, loose, compute=DOUBLE)
    two = explain(model, image, ALL, tight, compute=DOUBLE)
    assert "VX106" not in [f.code for f in one.findings]
    assert "VX106" in [f.code for f in two.findings]
    assert one.provenance.cost.n_forward > first.provenance.cost.n_forward
    assert one.players is not None
    assert one.players.frame["error"].max() <= worst * 0.9 * np.abs(values(one)).sum()


def test_below_the_least_budget_it_refuses() -> None:
    image = volume(GRID, 1, seed=3)
    model = describe(SmallNet(3, seed=9), window=(5, 9, 13))
    with pytest.raises(MethodError, match="samples are needed"):
        explain(model, image, ALL, Shapley("cubes:40", samples=40))
    with pytest.raises(MethodError, match="interactions need every coalition"):
        explain(model, image, ALL, Shapley("cubes:40", interactions=True))
    with pytest.raises(MethodError, match="more than most"):
        explain(model, image, ALL, Owen(players="cubes:40"))
    for wrong in (
        {"players": "spheres:4"},
        {"players": "cubes:0"},
        {"players": "channels*channels"},
    ):
        with pytest.raises(MethodError, match="players are"):
            Shapley(**wrong)
    with pytest.raises(MethodError, match="no player 'organ_9'"):
        explain(model, image, ALL, Owen("a=organ_9"), regions=labels(GRID, 2, seed=4))


def test_absent_class_and_region_elsewhere() -> None:
    """A class without a voxel has value 0; a window without target voxels is not run."""
    net = Recorder(SmallNet(3, seed=1))
    model = describe(net, window=WINDOW)
    image = volume(GRID, 1, seed=3)
    mask = np.zeros(GRID.shape, bool)
    mask[0, 0, 0] = True
    one = ClassTarget("class_1", Mask(LabelMap.of(mask, GRID)))
    result = explain(model, image, one, Shapley("cubes:6"), compute=Compute("cpu", batch_size=1))
    n_windows = result.targets[0].n_windows
    assert n_windows == 1
    assert result.provenance.cost.n_forward <= n_windows + 2**6 + n_windows


def test_painted_values() -> None:
    image, regions = volume(GRID, 1, seed=3), labels(GRID, 3, seed=4)
    model = describe(SmallNet(3, seed=1), window=WINDOW)
    result = explain(model, image, ALL, Shapley(paint="value"), regions=regions, compute=DOUBLE)
    for name, value in zip(regions.names.values(), values(result)[0], strict=True):
        inside = result[ALL.name].values[0][regions.mask(name)]
        np.testing.assert_allclose(inside, value)
    assert result.targets[0].gap is None


def test_the_same_whatever_the_batch() -> None:
    image = volume(GRID, 1, seed=3)
    model = describe(SmallNet(3, seed=1), window=WINDOW)
    method = Shapley("cubes:60", exact=2, samples=100)
    one, two = (
        values(explain(model, image, ALL, method, compute=Compute("cpu", "float64", batch_size=n)))
        for n in (1, 5)
    )
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_model_unchanged_after_an_error() -> None:
    net = SmallNet(3, seed=1)
    model = describe(Failing(net, after=20), window=WINDOW)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModelError):
        explain(model, volume(GRID, 1, seed=3), ALL, Shapley("cubes:40"))
    assert all((before[k] == v).all() for k, v in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_cubes_are_cubes_in_mm() -> None:
    grid = oblique_grid((12, 10, 6), (1.0, 1.5, 3.0))
    image = volume(grid, 1, seed=0)
    with open_pipeline(describe(SmallNet(3), window=(4, 5, 6)), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ALL, None, seed=0)
        players = players_of("cubes:30", question)
        first = players.index[0, 0] == players.index[0, 0, 0, 0, 0]
        lengths = [first.any(axis=tuple(a for a in range(3) if a != k)).sum() for k in range(3)]
        sides = np.multiply(lengths, grid.spacing)
        assert sides.max() / sides.min() < 1.6
        assert 15 <= len(players) <= 60
        assert 10 <= len(players_of("supervoxels:30", question)) <= 60
        assert players_of("channels", question).names == image.channels
