"""Inserted lesions: closed forms of shape and change, and back from images what was put in."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from voxplain.errors import GridError, LabelError, RecordError
from voxplain.lesions.insert import LesionShape, insert_lesion
from voxplain.lesions.intensity import LesionIntensity
from voxplain.lesions.intensity_samples import border_distance
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.testing.phantoms import oblique_grid, volume

SHARP = LesionIntensity(
    ("a", "b"), (4.0, -2.0), (0.0, 0.0), (1e-9, 2e-9), (1.0, 0.0), (1.0, 1.0), 1, 10
)
SOFT = LesionIntensity(
    ("a", "b"), (4.0, -2.0), (0.5, 0.0), (-2.0, 0.0, 1.0, 2.0), (1.2, 0.7, 0.2, 0.0), (1.0, 2.0)
)
SHEARED = np.array([[1.0, 0.4, 0, 3], [0, 1.2, -0.3, -7], [0.1, 0, 2.0, 11], [0, 0, 0, 1]])


def grids() -> list[Grid]:
    return [
        oblique_grid((22, 19, 11), (0.7, 1.1, 2.3), seed=5),
        oblique_grid((31, 24), (0.6, 1.3), seed=6),
        Grid((22, 23, 13), SHEARED),
    ]


def positions(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return grid.to_world(index)


@pytest.mark.parametrize("grid", grids())
def test_the_change_is_contrast_times_difference_times_profile_of_the_distance(grid: Grid) -> None:
    rng = np.random.default_rng(1)
    image = volume(grid, 2, seed=2)
    centre = grid.to_world([n / 2 + 0.3 for n in grid.shape])
    diameter, contrast = rng.uniform(4, 7), rng.uniform(0.3, 2)
    found, mask = insert_lesion(image, centre, diameter, SOFT, contrast=contrast)
    distance = np.linalg.norm(positions(grid) - centre, axis=-1) - diameter / 2
    np.testing.assert_array_equal(mask, distance <= 0)
    profile = np.interp(distance, SOFT.at_mm, SOFT.profile, right=0.0)
    wanted = image.data + contrast * np.multiply.outer([4.0, -2.0], profile)
    np.testing.assert_allclose(found.data, wanted, atol=1e-5)
    np.testing.assert_array_equal(found.data[:, distance > 2], image.data[:, distance > 2])
    assert found.data.dtype == image.data.dtype
    assert (found.grid, found.channels, found.name) == (grid, image.channels, image.name)


def test_no_contrast_gives_the_image_back_even_with_texture() -> None:
    image = volume(grids()[0], 2)
    centre = image.grid.to_world([10, 9, 5])
    found, mask = insert_lesion(
        image, centre, 5, SOFT, contrast=0, rng=np.random.default_rng(0), irregularity=0.4
    )
    np.testing.assert_array_equal(found.data, image.data)
    assert mask.any()


def test_the_image_is_not_changed_in_place_and_within_holds_the_rest() -> None:
    image = volume(grids()[0], 2)
    before = image.data.copy()
    within = np.random.default_rng(3).random(image.grid.shape) < 0.5
    found, _ = insert_lesion(image, image.grid.to_world([10, 9, 5]), 6, SHARP, within=within)
    np.testing.assert_array_equal(image.data, before)
    changed = (found.data != before).any(axis=0)
    assert changed.any()
    assert not changed[~within].any()


def test_texture_has_its_standard_deviation_where_there_is_any() -> None:
    grid = Grid((40, 40, 40), np.eye(4))
    image = Volume(np.zeros((2, *grid.shape)), grid)
    flat = replace(SHARP, texture_sd=(1.5, 0.0))
    rng = np.random.default_rng(4)
    found, mask = insert_lesion(image, [20, 20, 20], 30, flat, contrast=2, rng=rng)
    n = mask.sum()
    assert abs(found.data[0][mask].std() - 3.0) < 4 * 3.0 / np.sqrt(2 * n)
    assert abs(found.data[0][mask].mean() - 8.0) < 4 * 3.0 / np.sqrt(n)
    assert found.data[1][mask].std() < 1e-6
    again, _ = insert_lesion(
        image, [20, 20, 20], 30, flat, contrast=2, rng=np.random.default_rng(4)
    )
    np.testing.assert_array_equal(again.data, found.data)


def test_an_irregular_border_stays_within_its_share() -> None:
    grid = Grid((60, 60, 60), np.diag([0.5, 0.5, 0.5, 1.0]))
    centre = (15.0, 15.0, 15.0)
    shape = LesionShape.draw(centre, 16, 0.3, np.random.default_rng(7))
    length = np.linalg.norm(positions(grid) - centre, axis=-1)
    mask = shape.voxels(grid)
    assert mask[length < 8 * 0.7 - 1e-9].all()
    assert not mask[length > 8 * 1.3 + 1e-9].any()
    ball = LesionShape.draw(centre, 16).voxels(grid)
    assert np.count_nonzero(mask != ball) > 0.02 * ball.sum()
    assert shape.reach_mm == pytest.approx(10.4)
    near = shape.around(grid, 2.0)
    assert near is not None
    np.testing.assert_array_equal(near[1], shape.distance_mm(positions(grid)[near[0].slices]))


def test_a_lesion_beyond_the_image_holds_no_voxel() -> None:
    image = volume(grids()[0], 2)
    far = image.grid.to_world([500, 0, 0])
    assert LesionShape.draw(far, 5).around(image.grid) is None
    with pytest.raises(LabelError, match=r"no voxel centre lies in a lesion of 5 mm"):
        insert_lesion(image, far, 5, SOFT)
    between = image.grid.to_world([10.5, 9.5, 5.5])
    with pytest.raises(LabelError, match="larger diameter"):
        insert_lesion(image, between, 0.2, SOFT)


def test_part_of_a_lesion_may_lie_outside() -> None:
    image = volume(grids()[0], 2)
    found, mask = insert_lesion(image, image.grid.to_world([0, 0, 0]), 6, SHARP)
    assert mask[0, 0, 0]
    np.testing.assert_allclose(
        (found.data - image.data)[:, mask].T, [[4, -2]] * mask.sum(), atol=1e-5
    )


def test_bad_settings_are_refused() -> None:
    image = volume(grids()[0], 2)
    centre = image.grid.to_world([10, 9, 5])
    with pytest.raises(LabelError, match="more than 0 mm, got -3"):
        insert_lesion(image, centre, -3, SOFT)
    with pytest.raises(LabelError, match="irregularity is 0"):
        insert_lesion(image, centre, 3, SOFT, irregularity=0.9, rng=np.random.default_rng())
    with pytest.raises(LabelError, match="give rng"):
        insert_lesion(image, centre, 3, SOFT, irregularity=0.2)
    with pytest.raises(GridError, match="has 3 numbers"):
        insert_lesion(image, centre[:2], 3, SOFT)
    with pytest.raises(LabelError, match=r"2 channels \(a, b\), the image has 1"):
        insert_lesion(volume(grids()[0], 1), centre, 3, SOFT)


# -- what is learned ----------------------------------------------------------------
def test_distances_to_faces_are_exact_along_the_axes() -> None:
    mask = np.zeros((9, 7), bool)
    mask[3:6] = True
    wanted = np.array([2.5, 1.5, 0.5, -0.5, -1.5, -0.5, 0.5, 1.5, 2.5]) * 0.8
    # the frame counts as outside: look at the middle column
    np.testing.assert_allclose(border_distance(mask, (0.8, 2.0))[:, 3], wanted)


@pytest.mark.parametrize("grid", grids()[:2])
def test_a_hard_edge_on_a_flat_background_is_learned_exactly(grid: Grid) -> None:
    rng = np.random.default_rng(8)
    level, step = rng.uniform(5, 50, 2), rng.uniform(1, 9, 2) * [1, -1]
    mask = LesionShape.draw(grid.to_world([n / 2 for n in grid.shape]), 6).voxels(grid)
    data = level.reshape(-1, *[1] * grid.rank) + np.multiply.outer(step, mask)
    found = LesionIntensity.learn(Volume(data, grid, ("a", "b")), mask)
    np.testing.assert_allclose(found.difference, step, rtol=1e-9)
    np.testing.assert_allclose(found.texture_sd, 0, atol=0.2 * np.abs(step).max())
    assert found.profile_at(-3.0) == pytest.approx(1.0)
    assert found.profile_at(1.9) == pytest.approx(0.0, abs=1e-9)
    assert (found.n_lesions, found.n_voxels) == (1, mask.sum())


def test_what_was_inserted_is_learned() -> None:
    grid = oblique_grid((50, 44, 36), (0.9, 1.0, 1.2), seed=9)
    rng = np.random.default_rng(9)
    data = 100 + rng.normal(0, 0.4, (2, *grid.shape))
    image = Volume(data, grid, ("a", "b"))
    truth = replace(SOFT, difference=(8.0, -3.0), texture_sd=(1.5, 0.0))
    mask = np.zeros(grid.shape, bool)
    for place in ([13, 12, 10], [36, 14, 22], [24, 33, 14]):
        image, one = insert_lesion(image, grid.to_world(place), 11, truth, rng=rng)
        mask |= one
    found = LesionIntensity.learn(image, mask)
    distance = border_distance(mask, grid.spacing)
    mean = truth.profile_at(distance[mask]).mean()  # the difference is a mean over the inside
    np.testing.assert_allclose(found.difference, np.multiply(truth.difference, mean), rtol=0.08)
    assert found.texture_sd[0] == pytest.approx(1.5, rel=0.25)
    assert found.texture_sd[1] < 0.5
    at = np.array([-2.5, -1.0, 0.0, 1.0])
    np.testing.assert_allclose(
        found.profile_at(at) * found.difference[0], truth.profile_at(at) * 8.0, atol=1.2
    )
    assert found.n_lesions == 3
    np.testing.assert_allclose(found.scale, 0.4, rtol=0.9)


def test_rings_leave_other_lesions_and_what_is_no_tissue_out() -> None:
    grid = Grid((40, 20, 20), np.eye(4))
    mask = np.zeros(grid.shape, bool)
    mask[10:13, 9:12, 9:12] = True
    mask[16:19, 9:12, 9:12] = True  # 3 mm away: in the other's ring
    tissue = np.zeros(grid.shape, bool)
    tissue[:30] = True
    data = np.where(tissue, 10.0, -500.0)
    data[mask] = 14
    found = LesionIntensity.learn(Volume(data[None], grid), mask, tissue=tissue)
    assert found.difference == pytest.approx((4.0,))
    assert found.n_lesions == 2
    assert found.texture_sd == pytest.approx((0.0,), abs=1e-9)


def test_a_profile_never_rises_and_ends_at_zero() -> None:
    grid = oblique_grid((24, 22, 20), (1.0, 1.1, 0.9), seed=3)
    rng = np.random.default_rng(10)
    mask = LesionShape.draw(grid.to_world([12, 11, 10]), 7).voxels(grid)
    image = Volume(rng.normal(0, 3, (1, *grid.shape)) + 2 * mask, grid)
    found = LesionIntensity.learn(image, mask)
    assert (np.diff(found.profile) <= 0).all()
    assert found.profile[-1] == 0
    assert found.reach_mm == 2.0


def test_scales_bring_intensities_to_another_unit() -> None:
    grid = oblique_grid((20, 18, 12), seed=4)
    image = volume(grid, 2, seed=5)
    tissue = np.ones(grid.shape, bool)
    factors = np.array([7.0, 0.2])
    other = image.with_data(image.data * factors.reshape(-1, 1, 1, 1).astype(np.float32))
    here, there = SOFT.fitted(image, tissue), SOFT.fitted(other, tissue)
    np.testing.assert_allclose(there.difference, here.difference * factors, rtol=1e-5)
    np.testing.assert_allclose(there.texture_sd, here.texture_sd * factors, rtol=1e-5)
    np.testing.assert_allclose(here.scale, image.data.std(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(here.difference, np.multiply([4, -1], here.scale), rtol=1e-5)
    assert there.fitted(image, tissue).difference == pytest.approx(here.difference)
    with pytest.raises(LabelError, match="2 channels, the image has 1"):
        SOFT.fitted(volume(grid, 1), tissue)
    with pytest.raises(LabelError, match="no healthy tissue"):
        SOFT.fitted(image, ~tissue)


def test_pooling_weighs_by_voxels() -> None:
    one = replace(SOFT, n_voxels=30, n_lesions=2)
    two = replace(
        SOFT, difference=(8.0, 0.0), scale=(2.0, 2.0), at_mm=(-1.0, 3.0), profile=(1.0, 0.0),
        texture_sd=(0.0, 0.0), n_voxels=10, n_lesions=1,
    )  # fmt: skip
    found = LesionIntensity.pool([one, two])
    scale = 0.75 * 1 + 0.25 * 2  # of channel a
    assert found.difference[0] == pytest.approx((0.75 * 4 / 1 + 0.25 * 8 / 2) * scale)
    assert found.texture_sd[0] == pytest.approx(np.sqrt(0.75 * 0.25) * scale)
    at = np.linspace(-3, 4, 29)
    wanted = 0.75 * one.profile_at(at) + 0.25 * two.profile_at(at)
    knots = np.isin(at, found.at_mm)
    np.testing.assert_allclose(found.profile_at(at)[knots], wanted[knots])
    assert (found.n_lesions, found.n_voxels) == (3, 40)
    same = LesionIntensity.pool([one, one])
    np.testing.assert_allclose(same.difference, one.difference)
    for bad in ([], [one, replace(one, channels=("b", "a"))]):
        with pytest.raises(LabelError, match="same channels"):
            LesionIntensity.pool(bad)


def test_files_give_back_what_was_saved(tmp_path) -> None:
    SOFT.save(tmp_path / "intensity.json")
    assert LesionIntensity.load(tmp_path / "intensity.json") == SOFT
    assert LesionIntensity.from_dict(json.loads(json.dumps(SOFT.to_dict()))) == SOFT
    values = SOFT.to_dict()
    del values["profile"]
    with pytest.raises(RecordError, match="profile"):
        LesionIntensity.from_dict(values)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RecordError, match="does not hold"):
        LesionIntensity.load(tmp_path / "other.json")
    with pytest.raises(RecordError, match="cannot be read"):
        LesionIntensity.load(tmp_path / "none.json")


def test_nothing_to_learn_from_is_said() -> None:
    grid = Grid((20, 20, 20), np.eye(4))
    image = Volume(np.ones((1, *grid.shape)), grid)
    mask = np.zeros(grid.shape, bool)
    with pytest.raises(LabelError, match="no lesion to learn from"):
        LesionIntensity.learn(image, mask)
    mask[9:12, 9:12, 9:12] = True
    with pytest.raises(LabelError, match="intensities of their surroundings"):
        LesionIntensity.learn(image, mask)
    with pytest.raises(LabelError, match="no lesion has healthy tissue 2 to 6 mm"):
        LesionIntensity.learn(image, mask, tissue=mask)
    with pytest.raises(GridError, match="mask must have the image's shape"):
        LesionIntensity.learn(image, mask[1:])
    with pytest.raises(GridError, match="tissue must have the image's shape"):
        LesionIntensity.learn(image, mask, tissue=mask[1:])
    with pytest.raises(LabelError, match="rising distances"):
        LesionIntensity.learn(image, mask, ring_mm=(6, 2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"difference": (1.0,)}, "one number for each of the 2 channels"),
        ({"texture_sd": (-1.0, 0.0)}, "at least 0"),
        ({"scale": (0.0, 1.0)}, "more than 0"),
        ({"difference": (float("nan"), 0.0)}, "finite"),
        ({"at_mm": (0.0, 0.0, 1.0, 2.0)}, "rising distances"),
        ({"profile": (1.0, 0.0)}, "as many values"),
        ({"profile": (0.5, 0.7, 0.2, 0.0)}, "never rises"),
    ],
)
def test_impossible_intensities_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        replace(SOFT, **changes)
