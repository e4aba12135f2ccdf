"""Kidney phantoms: plausible, healthy, the same for the same seed."""

from __future__ import annotations

import functools

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, label

from voxplain.data import read_data
from voxplain.demo.kidneys import (
    KIDNEY_STRUCTURES,
    SHAPE,
    WINDOW,
    kidney_patient,
    write_kidney_patients,
)
from voxplain.errors import DataError

SEEDS = range(10)
drawn = functools.cache(kidney_patient)


def level(image):
    return (image.data[0] - WINDOW[0]) / (WINDOW[1] - WINDOW[0])


def kidneys(labels):
    return labels.mask("kidney_left") | labels.mask("kidney_right")


def test_one_seed_gives_one_phantom():
    (image, labels), (again, same), (other, _) = drawn(3), kidney_patient(3), drawn(4)
    assert image.sha256() == again.sha256() != other.sha256()
    assert np.array_equal(labels.layers, same.layers)
    assert image.data.shape == (1, *SHAPE)
    assert np.array_equal(image.data, np.rint(image.data))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_grid_is_axial_and_anisotropic(seed):
    grid = drawn(seed)[0].grid
    assert grid.orientation == "LPS"
    assert np.count_nonzero(grid.affine[:3, :3]) == 3
    plane, same, between = grid.spacing
    assert plane == same
    assert 4.5 < plane < 5.7
    assert 7.5 < between < 8.5


@pytest.mark.parametrize("seed", SEEDS)
def test_two_kidneys_one_on_each_side_over_most_slices(seed):
    image, labels = drawn(seed)
    assert labels.region_names[1:] == KIDNEY_STRUCTURES
    for name in KIDNEY_STRUCTURES:
        assert labels.mask(name).any()
    left, right = (np.argwhere(labels.mask(f"kidney_{side}")).mean(0) for side in ("left", "right"))
    to_world = image.grid.to_world
    assert to_world(left)[0] < to_world(right)[0]  # x is to the right
    liver = to_world(np.argwhere(labels.mask("liver")).mean(0))
    spine = to_world(np.argwhere(labels.mask("vertebrae")).mean(0))
    assert liver[0] > spine[0]
    assert spine[1] < to_world(left)[1]  # y is to the front
    for side in ("left", "right"):
        assert label(labels.mask(f"kidney_{side}"))[1] == 1
        assert 90e3 < labels.mask(f"kidney_{side}").sum() * image.grid.voxel_mm3 < 250e3
    assert 10 <= (kidneys(labels).sum((0, 1)) > 30).sum() <= 15


@pytest.mark.parametrize("seed", SEEDS)
def test_levels_are_those_that_are_told(seed):
    image, labels = drawn(seed)
    values = level(image)
    for name, low, high in [
        ("kidney_left", 0.49, 0.61), ("kidney_right", 0.49, 0.61), ("liver", 0.46, 0.54),
        ("vertebrae", 0.88, 0.92),
    ]:  # fmt: skip
        core = binary_erosion(labels.mask(name), np.ones((3, 3, 1)), border_value=1)
        assert low < np.median(values[core]) < high, name
        assert 0.015 < values[core].std() < 0.08, name
    assert 0.66 < np.median(values[labels.mask("aorta")]) < 0.92
    assert values[0, 0].max() < -1.4
    assert image.data.min() >= -1024


@pytest.mark.parametrize("seed", SEEDS)
def test_bowel_is_bright_and_beside_the_kidneys_never_in_them(seed):
    image, labels = drawn(seed)
    values, organ = level(image), kidneys(labels)
    # with noise and texture of 0.02 each, a kidney of at most 0.60 hardly reaches 0.72
    assert np.quantile(values[organ], 0.999) < 0.72
    loops = labels.mask("bowel")
    assert np.quantile(values[loops], 0.9) > 0.65
    assert not (binary_dilation(organ, np.ones((3, 3, 1))) & loops).any()
    near = binary_dilation(organ, np.ones((3, 3, 1)), iterations=5)
    assert (near & loops).any()


def test_some_bowel_is_as_small_as_an_anomaly():
    areas = []
    for seed in SEEDS:
        loops = drawn(seed)[1].mask("bowel")
        for z in range(SHAPE[2]):
            areas += np.bincount(label(loops[:, :, z])[0].ravel())[1:].tolist()
    assert np.mean([area < np.pi * 3.5**2 for area in areas]) > 0.2
    assert max(areas) > np.pi * 5**2


def test_kidneys_differ_in_level():
    means = [level(drawn(seed)[0])[kidneys(drawn(seed)[1])].mean() for seed in SEEDS]
    assert np.ptp(means) > 0.03


def test_written_phantoms_are_a_cohort(tmp_path):
    manifest = write_kidney_patients(tmp_path / "kidneys", 2, 1, 1, seed=1)
    cohort = read_data(manifest)
    assert [case.split for case in cohort] == ["train", "train", "validation", "test"]
    assert len({case.patient for case in cohort}) == 4
    assert dict(cohort.classes)[1] == "kidney_left"
    stored = nibabel.load(cohort.cases[1].images[0])
    image, labels = kidney_patient(10001)
    assert stored.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(stored.dataobj), image.data[0])
    np.testing.assert_allclose(stored.affine, image.grid.affine, rtol=1e-6)
    stored = nibabel.load(cohort.cases[1].labels)
    assert np.array_equal(np.asarray(stored.dataobj), labels.layers[0])


def test_parts_do_not_depend_on_each_other(tmp_path):
    few = read_data(write_kidney_patients(tmp_path / "few", 0, 0, 1))
    more = read_data(write_kidney_patients(tmp_path / "more", 1, 1, 2))
    assert few.cases[0].name == more.cases[2].name


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 2, 2), (6001, 0, 0), (0, 2001, 0)])
def test_numbers_out_of_range_are_refused(counts, tmp_path):
    with pytest.raises(DataError, match="at most 6000 phantoms"):
        write_kidney_patients(tmp_path / "no", *counts)
