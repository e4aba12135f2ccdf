"""ROAD: the linear system, Quantus' imputation, and the order of maps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from voxplain.assess.curves import deletion_area
from voxplain.assess.removal_curves import Curver
from voxplain.assess.road_fill import (
    imputed,
    noisily_imputed,
    road,
    road_curve,
    road_passes,
)
from voxplain.attribution import InputXGradient
from voxplain.attribution.ask import ask
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Outcome
from voxplain.attribution.targets import ClassTarget
from voxplain.attribution.where import Everywhere
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.records.metric import CONSTANT_MAP, NO_CHANGE, Measured
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Constant, Linear, Recorder, SmallNet, Step, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")
ALL = ClassTarget("class_1", Everywhere())
OTHER = ClassTarget("class_2", Everywhere())
EXACT = 1e-13


def given(values: NDArray[np.floating]) -> Maps:
    return Maps(values[:, None], "sensitivity", Outcome(), Passes(), 0.0)


def test_imputation_of_quantus() -> None:
    """Without noise, on two channels, with speckle, a hole and removed corners."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quantus.functions.perturb_func import noisy_linear_imputation
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, 9, 13)) + 5
    gone = rng.random((9, 13)) < 0.4
    gone[2:6, 3:9] = True
    gone[0, 0] = gone[-1, -1] = True
    wanted = noisy_linear_imputation(
        data,
        np.flatnonzero(gone),
        noise=0.0,
    )
    found = imputed(data, gone, tolerance=EXACT)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    np.testing.assert_array_equal(found[:, ~gone], data[:, ~gone])


def test_every_removed_voxel_is_the_mean_of_its_neighbours() -> None:
    """In 3D: 1/14 a face, 1/28 an edge, 1/56 a corner, by a naive sum."""
    rng = np.random.default_rng(1)
    data, gone = rng.normal(size=(1, 4, 5, 6)), rng.random((4, 5, 6)) < 0.6
    found = imputed(data, gone, tolerance=EXACT)[0]
    for place in np.argwhere(gone):
        total = weight = 0.0
        for offset in np.ndindex(3, 3, 3):
            step = np.array(offset) - 1
            there = place + step
            if step.any() and (there >= 0).all() and (there < gone.shape).all():
                own = (1 / 14, 1 / 28, 1 / 56)[int(np.abs(step).sum()) - 1]
                total, weight = total + own * found[tuple(there)], weight + own
        assert found[tuple(place)] == pytest.approx(total / weight, abs=1e-10)


def test_slices_closed_forms_and_a_whole_image() -> None:
    rng = np.random.default_rng(2)
    flat, gone = rng.normal(size=(1, 7, 8)), rng.random((7, 8)) < 0.5
    plane = imputed(flat, gone, tolerance=EXACT)
    single = imputed(flat[:, :, None], gone[:, None], tolerance=EXACT)
    np.testing.assert_allclose(single[:, :, 0], plane, atol=1e-10)
    stacked = imputed(np.stack([flat] * 4, -1), np.stack([gone] * 4, -1), tolerance=EXACT)
    np.testing.assert_allclose(stacked[..., 2], plane, atol=1e-10)
    slope = np.broadcast_to(np.arange(9.0) * 2 - 1000, (1, 6, 9)).copy()
    hole = np.zeros((6, 9), bool)
    hole[2:5, 2:7] = True
    np.testing.assert_allclose(imputed(slope, hole, tolerance=EXACT), slope, atol=1e-9)
    np.testing.assert_array_equal(imputed(slope, np.zeros_like(hole)), slope)
    np.testing.assert_allclose(imputed(np.full((1, 6, 9), 3.0), hole), 3.0, atol=0)
    with pytest.raises(MethodError, match="a voxel that is not removed"):
        imputed(slope, np.ones_like(hole))


def test_noise_is_of_the_voxel_and_in_units_of_the_image() -> None:
    image = volume(oblique_grid((12, 20, 21)), 2, seed=3)
    image.data[1] *= 100
    model = describe(SmallNet(3, n_channels=2, seed=2), n_channels=2, window=WINDOW)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, [ALL], None, seed=0)
        rng = np.random.default_rng(0)
        some = rng.random(image.grid.shape) < 0.4
        more = some | (rng.random(image.grid.shape) < 0.4)
        noises = []
        for gone in (some, more):
            noise = noisily_imputed(question, gone, noise=0.05) - imputed(image.data, gone)
            assert not noise[:, ~gone].any()
            noises.append(noise[:, some])
        np.testing.assert_allclose(noises[0], noises[1], atol=1e-10)
        sd = image.data.reshape(2, -1).std(1)
        np.testing.assert_allclose(noises[0].std(1) / sd, 0.05, rtol=0.06)
        np.testing.assert_array_equal(
            noisily_imputed(question, some), noisily_imputed(question, some)
        )


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_values_are_those_of_imputed_images(score: str) -> None:
    net = Recorder(SmallNet(3, seed=2))
    image = volume(GRID, 1, seed=3)
    targets = [ClassTarget(t.class_name, Everywhere(), score=score) for t in (ALL, OTHER)]
    with open_pipeline(describe(net, window=WINDOW), image, DOUBLE) as pipeline:
        question = ask(pipeline, image, targets, None, seed=0)
        maps = given(np.random.default_rng(0).random((2, *GRID.shape)))
        fractions = (0.0, 0.2, 0.7)
        most = road_passes(question, fractions=fractions)
        _ = question.support_logits
        net.clear()
        curver = Curver(question)
        curves = road_curve(curver, maps, fractions=fractions)
        other = road_curve(curver, maps, fractions=fractions, order="least")
        assert net.n_windows <= most.n_forward
        np.testing.assert_array_equal(curves.values[:, 0], [curves.clean] * 2)
        for a in range(2):
            order = np.argsort(-maps.values[a, 0].ravel())
            for step in (1, 2):
                gone = np.zeros(GRID.n_voxels, bool)
                gone[order[: int(np.ceil(fractions[step] * gone.size - 1e-6))]] = True
                data = noisily_imputed(question, gone.reshape(GRID.shape))
                wanted = question.values(pipeline.changed(data).clean)
                np.testing.assert_allclose(curves.values[a, step], wanted, rtol=1e-9)
        assert not np.allclose(curves.values[:, 1:], other.values[:, 1:])


def test_perfect_inverted_constant_and_a_model_that_does_not_look() -> None:
    """A bright ball that a step sees: imputing it first loses it, last keeps it."""
    places = np.stack(np.meshgrid(*map(np.arange, (12, 11, 13)), indexing="ij"))
    ball = ((places - np.array([5, 5, 6]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 9
    grid = oblique_grid((12, 11, 13))
    image = Volume(np.where(ball, 2.0, 0.0).astype(np.float32)[None], grid)
    model = describe(Step([0.0, 2.0, 1.0], threshold=1.0), window=(6, 6, 7))
    truth = ball.astype(float)[None]

    def measure(curver: Curver, values: NDArray[np.floating]) -> Measured:
        maps = given(values)
        return road(road_curve(curver, maps), road_curve(curver, maps, order="least"), 0)

    with open_pipeline(model, image, DOUBLE) as pipeline:
        curver = Curver(ask(pipeline, image, [ALL], None, seed=0))
        perfect, inverted = measure(curver, truth), measure(curver, 1 - truth)
        assert perfect.value > 0.8
        assert inverted.value == pytest.approx(-perfect.value, abs=0.2)
        assert measure(curver, np.ones_like(truth)) == (0.0, (CONSTANT_MAP,))
    with open_pipeline(describe(Constant([0.0, 1.0, 0.5])), image, DOUBLE) as pipeline:
        blind = measure(Curver(ask(pipeline, image, [ALL], None, seed=0)), truth)
        assert np.isnan(blind.value)
        assert blind.flags == (NO_CHANGE,)


def test_a_linear_model_on_a_plane() -> None:
    """What imputation leaves of Σ w·x is known: the score of the imputed image."""
    grid = oblique_grid((9, 14), (0.7, 1.1))
    image = volume(grid, 2, seed=5)
    model = describe(
        Linear([[0.0, 0.0], [1.0, -2.0]]), rank=2, n_channels=2, n_classes=2, window=(5, 6)
    )
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, [ALL], None, seed=0)
        maps = compute_maps(question, InputXGradient())
        curver = Curver(question)
        curves = road_curve(curver, maps, fractions=(0.0, 0.3), noise=0.0)
        signed = maps.signed()[0] * np.sign(curves.clean[0] - curves.empty[0])
        gone = np.zeros(grid.n_voxels, bool)
        gone[np.argsort(-signed.ravel())[: int(np.ceil(0.3 * gone.size))]] = True
        data = imputed(image.data, gone.reshape(grid.shape))
        assert curves.values[0, 1, 0] == pytest.approx((data[0] - 2 * data[1]).sum(), rel=1e-9)


def test_settings_are_checked() -> None:
    image = volume(GRID, 1, seed=3)
    maps = given(np.random.default_rng(0).random((1, *GRID.shape)))
    with open_pipeline(describe(SmallNet(3, seed=2), window=WINDOW), image, DOUBLE) as pipeline:
        curver = Curver(ask(pipeline, image, [ALL], None, seed=0))
        with pytest.raises(MethodError, match="fractions below 1, got 1"):
            road_curve(curver, maps, fractions=(0.0, 1.0))
        with pytest.raises(MethodError, match="standard deviation of at least 0"):
            road_curve(curver, maps, noise=-1.0)
        most = road_curve(curver, maps, fractions=(0.0, 0.5))
        least = road_curve(curver, maps, fractions=(0.0, 0.4), order="least")
        with pytest.raises(MethodError, match="most and of the least relevant"):
            road(most, most, 0)
        with pytest.raises(MethodError, match="two curves of the same steps"):
            road(most, least, 0)
        with pytest.raises(MethodError, match="area needs fractions"):
            deletion_area(most, 0)
