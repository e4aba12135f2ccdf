from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from voxplain.demo import STRUCTURES, acquisition, demo_case, patient, write_patients
from voxplain.demo.anatomy import Anatomy
from voxplain.space.nifti import read_nifti

SEEDS = (3, 4)
MEAN_HU = {
    "lung_right": (-880, -700),
    "lung_left": (-880, -700),
    "trachea": (-990, -780),
    "heart": (30, 190),
    "aorta": (20, 290),
    "esophagus": (-90, 60),
    "vertebrae": (150, 500),
    "spinal_cord": (5, 90),
    "ribs": (200, 650),
    "sternum": (150, 600),
    "scapulae": (200, 600),
    "autochthon": (30, 90),
    "liver": (30, 140),
    "spleen": (25, 140),
    "stomach": (-300, 30),
    "nodule": (-200, 60),
}


drawn = functools.cache(patient)


@pytest.fixture(scope="module", params=SEEDS)
def case(request):
    return drawn(request.param)


def centre_mm(labels, name):
    return labels.grid.to_world(np.argwhere(labels.mask(name))).mean(axis=0)


def test_one_seed_gives_one_patient_and_another_seed_another():
    image, labels = drawn(3)
    again, labels_again = patient(3)
    assert image.sha256() == again.sha256()
    assert np.array_equal(labels.layers, labels_again.layers)
    assert drawn(4)[0].sha256() != image.sha256()


def test_a_patient_is_the_one_that_the_network_was_trained_on():
    # voxel counts of one patient: they move if any draw or solid changes
    _, labels = drawn(3)
    counts = [int(labels.mask(name).sum()) for name in STRUCTURES]
    expected = [
        25835, 25239, 611, 7857, 3642, 551, 6300, 873,
        8475, 789, 2227, 7012, 25839, 1672, 2771, 113,
    ]  # fmt: skip
    assert np.allclose(counts, expected, atol=5)


def test_drawing_patients_needs_no_torch():
    code = "import sys, voxplain.demo; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_grid_is_anisotropic_oblique_and_no_cube():
    grid = acquisition(3)
    assert grid.orientation == "LPS"
    assert len(set(grid.shape)) == 3
    assert grid.spacing[0] == pytest.approx(grid.spacing[1])
    assert grid.spacing[2] > 1.05 * grid.spacing[0]
    cosines = np.abs(grid.affine[:3, :3] / grid.spacing)
    assert (cosines.max(axis=0) < np.cos(np.deg2rad(1))).all()
    assert (cosines.max(axis=0) > np.cos(np.deg2rad(8))).all()
    assert not np.allclose(acquisition(4).spacing, grid.spacing)


def test_image_is_whole_hounsfield_units_with_air_and_bone(case):
    image, _ = case
    assert image.channels == ("ct",)
    assert np.array_equal(image.data, np.rint(image.data))
    assert image.data.min() >= -1024
    assert image.data.max() > 350
    assert np.median(image.data[0, :, :3]) == pytest.approx(-1000, abs=15)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_there_with_its_intensity(case, name):
    image, labels = case
    voxels = image.data[0][labels.mask(name)]
    low, high = MEAN_HU[name]
    assert len(voxels) >= 25
    assert low < voxels.mean() < high


@pytest.mark.parametrize("name", [n for n in STRUCTURES if n not in ("ribs", "scapulae")])
def test_structure_hangs_together(case, name):
    _, labels = case
    components, _ = ndimage.label(labels.mask(name), np.ones((3, 3, 3)))
    sizes = np.sort(np.bincount(components.ravel())[1:])[::-1]
    largest = sizes[:2].sum() if name == "autochthon" else sizes[0]  # one muscle a side
    assert largest > 0.9 * sizes.sum()


def test_ribs_are_many_curved_tubes_on_both_sides(case):
    _, labels = case
    components, _ = ndimage.label(labels.mask("ribs"))
    large = np.flatnonzero(np.bincount(components.ravel()) > 60)[1:]
    sides = [labels.grid.to_world(np.argwhere(components == i))[:, 0].mean() > 0 for i in large]
    assert len(large) >= 12
    assert 0.3 < np.mean(sides) < 0.7


def test_organs_lie_where_they_belong(case):
    _, labels = case
    at = {name: centre_mm(labels, name) for name in STRUCTURES}
    right, front, up = at["vertebrae"]
    assert at["heart"][0] < right - 8
    assert at["liver"][0] > right + 15
    assert at["lung_right"][0] > right + 30
    for name in ("lung_left", "spleen", "stomach"):
        assert at[name][0] < right - 20
    assert at["sternum"][1] > at["heart"][1] > at["aorta"][1] > front > at["autochthon"][1]
    assert at["trachea"][2] > at["heart"][2] > at["liver"][2]
    assert at["liver"][2] < up


def test_nodule_lies_in_a_lung_and_only_where_it_is_asked_for():
    with_it, without = drawn(3)[1], drawn(3, lesion=False)[1]
    nodule = with_it.mask("nodule")
    assert not without.mask("nodule").any()
    assert np.isin(without.layers[0][nodule], [1, 2]).mean() > 0.95
    assert np.array_equal(with_it.layers[0][~nodule], without.layers[0][~nodule])


def test_one_patient_in_two_has_a_nodule_by_itself():
    share = np.mean([Anatomy(seed).nodule is not None for seed in range(40)])
    assert 0.3 < share < 0.7
    assert Anatomy(901).nodule is None
    assert Anatomy(901, lesion=True).nodule is not None


def test_anatomy_does_not_depend_on_the_grid_it_is_sampled_on():
    grid = acquisition(3).reorient("RAS").respace((6.0, 7.0, 9.0))
    _, coarse = patient(3, grid=grid)
    _, fine = drawn(3)
    for name in ("liver", "lung_left", "heart", "aorta"):
        volumes = [labels.mask(name).sum() * labels.grid.voxel_mm3 for labels in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.05)
        assert np.linalg.norm(centre_mm(coarse, name) - centre_mm(fine, name)) < 3


def test_noise_is_correlated_between_neighbours():
    image, labels = drawn(3)
    liver = ndimage.binary_erosion(labels.mask("liver"), iterations=3)
    noise = image.data[0] - ndimage.uniform_filter(image.data[0], 5)
    noise[~liver] = 0
    assert 8 < noise[liver].std() < 40
    shifted = (noise[1:] * noise[:-1]).mean() / (noise**2).mean()
    assert 0.3 < shifted < 0.9


def test_written_patients_read_back_equal(tmp_path):
    paths = write_patients(tmp_path / "cohort", [3])
    image, labels = drawn(3)
    data, grid = read_nifti(paths[0])
    truth, truth_grid = read_nifti(tmp_path / "cohort" / "patient_003_labels.nii.gz")
    names = json.loads((tmp_path / "cohort" / "labels.json").read_text())
    assert (data.dtype, truth.dtype) == (np.int16, np.uint8)
    assert np.array_equal(data, image.data)
    assert np.array_equal(truth, labels.layers)
    assert grid.matches(image.grid)
    assert truth_grid.matches(image.grid)
    assert {int(k): v for k, v in names.items()} == dict(enumerate(STRUCTURES, 1))


def test_demo_case_has_a_nodule():
    image, labels = demo_case()
    assert labels.mask("nodule").any()
    assert image.name == "patient_901"
