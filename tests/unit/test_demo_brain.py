from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from voxplain.demo import brain
from voxplain.demo.brain import (
    brain_acquisition,
    brain_case,
    brain_patient,
    brain_tissues,
    brain_truth,
    write_brains,
)
from voxplain.demo.brain_anatomy import BrainAnatomy
from voxplain.demo.brain_lesions import draw_spots
from voxplain.errors import ImageError
from voxplain.space.nifti import read_nifti

SEEDS = (3, 4)
FLAIR, MPRAGE = 0, 1

drawn = functools.cache(brain_patient)
tissues_of = functools.cache(brain_tissues)


@functools.cache
def spots_of(seed, *, lesions=True):
    return draw_spots(seed, BrainAnatomy(seed), lesions=lesions)


@pytest.fixture(scope="module", params=SEEDS)
def case(request):
    image, truth = drawn(request.param)
    return image, truth.mask(1), tissues_of(request.param)


def test_one_seed_gives_one_patient_and_another_seed_another():
    image, truth = drawn(3)
    brain._sampled.cache_clear()
    again, truth_again = brain_patient(3)
    assert image.sha256() == again.sha256()
    assert np.array_equal(truth.layers, truth_again.layers)
    assert drawn(4)[0].sha256() != image.sha256()
    assert not np.allclose(brain_acquisition(4).spacing, image.grid.spacing)


def test_a_patient_is_the_one_that_the_network_was_trained_on():
    # voxel counts of one patient: they move if any draw or solid changes
    image, truth = drawn(3)
    counts = [int(tissues_of(3).mask(label).sum()) for label in (1, 2, 3)]
    assert image.grid.shape == (86, 106, 78)
    assert np.allclose([*counts, truth.mask(1).sum()], [30404, 78576, 84620, 494], atol=8)


def test_drawing_patients_needs_no_torch():
    code = "import sys, voxplain.demo.brain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seed", range(20, 26))
def test_grid_is_anisotropic_oblique_and_no_cube(seed):
    grid = brain_acquisition(seed)
    assert grid.orientation == "LPS"
    assert len(set(grid.shape)) == 3
    assert all(1.7 < mm < 2.1 for mm in grid.spacing)
    assert grid.spacing[2] > 1.005 * grid.spacing[0]
    cosines = np.abs(grid.affine[:3, :3] / grid.spacing)
    assert (cosines.max(axis=0) < np.cos(np.deg2rad(1.4))).all()
    assert (cosines.max(axis=0) > np.cos(np.deg2rad(10))).all()


def test_outside_the_brain_is_exactly_zero_in_both_channels(case):
    image, _, tissues = case
    assert image.channels == ("flair", "mprage")
    inside = tissues.layers[0] > 0
    for data in image.data:
        assert np.array_equal(data != 0, inside)
        assert data[inside].min() >= 1
        assert np.array_equal(data, np.rint(data))
    components, _ = ndimage.label(inside)
    assert np.bincount(components.ravel())[1:].max() > 0.99 * inside.sum()
    litres = inside.sum() * image.grid.voxel_mm3 / 1e6
    assert 0.9 < litres < 1.8
    border = np.ones(inside.shape, bool)
    border[2:-2, 2:-2, 2:] = False  # the stem leaves through the lowest plane
    assert not (inside & border)[..., 2:].any()


def test_contrasts_are_those_of_the_two_sequences(case):
    image, lesion, tissues = case
    means = np.array(
        [[data[tissues.mask(t) & ~lesion].mean() for t in (1, 2, 3)] for data in image.data]
    )
    csf, gm, wm = means.T
    assert csf[FLAIR] < 0.6 * wm[FLAIR] < 0.6 * gm[FLAIR]
    assert csf[MPRAGE] < 0.65 * gm[MPRAGE] < 0.65 * wm[MPRAGE]
    assert wm[MPRAGE] > 1.3 * gm[MPRAGE]


def test_tissues_lie_where_they_belong(case):
    image, _, tissues = case
    depth = ndimage.distance_transform_edt(tissues.layers[0] > 0, image.grid.spacing)
    gm, wm = (depth[tissues.mask(label)] for label in (2, 3))
    assert np.median(gm) < 0.6 * np.median(wm)  # a ribbon around the white matter
    fluid, _ = ndimage.label(tissues.mask(1) & (depth > 25))
    assert np.bincount(fluid.ravel())[1:].max() * image.grid.voxel_mm3 > 1500  # ventricles


def test_lesions_show_in_white_matter_bright_in_flair_and_dark_in_mprage(case):
    image, lesion, tissues = case
    white = tissues.mask(3) & ~ndimage.binary_dilation(lesion, iterations=3)
    assert (tissues.layers[0][lesion] == 3).mean() > 0.7
    assert image.data[FLAIR][lesion].mean() > 1.2 * image.data[FLAIR][white].mean()
    assert image.data[MPRAGE][lesion].mean() < 0.9 * image.data[MPRAGE][white].mean()


def test_lesions_change_nothing_but_themselves():
    image, truth = drawn(3)
    healthy, none = drawn(3, lesions=False)
    near = ndimage.distance_transform_edt(~truth.mask(1), image.grid.spacing) < 5
    changed = image.data != healthy.data
    assert not none.mask(1).any()
    assert changed[:, near].any(axis=1).all()
    assert not changed[:, ~near].any()


@pytest.mark.parametrize(("shown", "other"), [("flair", MPRAGE), ("mprage", FLAIR)])
def test_lesions_show_only_in_the_channels_that_are_asked_for(shown, other):
    image, truth = drawn(3, channels_with_lesions=(shown,))
    both, same_truth = drawn(3)
    healthy, _ = drawn(3, lesions=False)
    assert np.array_equal(image.data[other], healthy.data[other])
    assert np.array_equal(image.data[1 - other], both.data[1 - other])
    assert np.array_equal(truth.layers, same_truth.layers)


def test_an_unknown_channel_is_refused():
    with pytest.raises(ImageError, match=r"'flair', 'mprage'.*got 'FLAIR'"):
        brain_patient(3, channels_with_lesions=("FLAIR",))


def test_number_size_and_strength_of_lesions_differ():
    numbers, radii, strengths = [], [], []
    for seed in range(40, 48):
        lesions = [spot for spot in spots_of(seed) if spot.lesion]
        numbers.append(len(lesions))
        radii += [np.cbrt(spot.radii.prod()) for spot in lesions]
        strengths += [spot.change for spot in lesions]
        for i, one in enumerate(lesions):
            for other in lesions[:i]:
                gap = np.linalg.norm(one.centre - other.centre) - one.radii.max()
                assert gap - other.radii.max() > 3
    flair, mprage = np.array(strengths).T
    assert 3 <= min(numbers) < max(numbers) <= 25
    assert 1.5 <= min(radii) < 2.5
    assert 5 < max(radii) <= 7.5
    assert 0.1 < np.mean(flair < 70) < 0.45  # faint ones
    assert flair.min() > 30
    assert mprage.max() < -25


def test_components_of_the_truth_are_the_lesions_that_were_drawn(case):
    image, lesion, _ = case
    _, found = ndimage.label(lesion, ndimage.generate_binary_structure(3, 2))
    wanted = sum(spot.lesion for spot in spots_of(int(image.name[-3:])))
    assert 0.75 * wanted <= found <= 1.25 * wanted


def test_confounders_are_the_same_without_lesions():
    everything, none = spots_of(3), spots_of(3, lesions=False)
    assert [s.change for s in everything if not s.lesion] == [s.change for s in none]
    assert len(everything) > len(none) >= 15


def test_bright_spots_in_the_ventricles_and_elsewhere_are_no_lesions(case):
    image, lesion, tissues = case
    bright = image.data[FLAIR] > np.percentile(image.data[FLAIR][lesion], 50)
    other = bright & ~ndimage.binary_dilation(lesion, iterations=2)
    assert other.sum() * image.grid.voxel_mm3 > 100
    deep = ndimage.distance_transform_edt(tissues.layers[0] > 0, image.grid.spacing) > 25
    fluid = image.data[FLAIR][deep & tissues.mask(1)]
    assert fluid.max() > 2.5 * np.median(fluid)  # choroid plexus


def test_anatomy_does_not_depend_on_the_grid_it_is_sampled_on():
    fine, truth = tissues_of(3), drawn(3)[1]
    grid = truth.grid.reorient("RAS").respace((1.4, 2.1, 1.8))
    other, other_truth = brain_tissues(3, grid), brain_truth(3, grid)
    for one, two in ((fine.mask(3), other.mask(3)), (truth.mask(1), other_truth.mask(1))):
        volumes = one.sum() * truth.grid.voxel_mm3, two.sum() * grid.voxel_mm3
        middles = [
            g.to_world(np.argwhere(m)).mean(axis=0) for g, m in ((truth.grid, one), (grid, two))
        ]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.06)
        assert np.linalg.norm(middles[0] - middles[1]) < 1.5


def test_truth_alone_is_the_truth_of_the_patient():
    truth = drawn(4)[1]
    assert np.array_equal(brain_truth(4, truth.grid).layers, truth.layers)


def test_written_patients_read_back_equal(tmp_path):
    paths = write_brains(tmp_path / "cohort", [3])
    image, truth = drawn(3)
    assert [path.name for path in paths] == ["brain_003_flair.nii.gz"]
    for channel, expected in zip(image.channels, image.data, strict=True):
        data, grid = read_nifti(tmp_path / "cohort" / f"brain_003_{channel}.nii.gz")
        assert data.dtype == np.int16
        assert np.array_equal(data[0], expected)
        assert grid.matches(image.grid)
    labels, grid = read_nifti(tmp_path / "cohort" / "brain_003_lesions.nii.gz")
    assert np.array_equal(labels, truth.layers)
    assert grid.matches(truth.grid)


def test_healthy_patients_are_written_with_an_empty_truth(tmp_path):
    write_brains(tmp_path, [3], lesions=False)
    labels, _ = read_nifti(tmp_path / "brain_003_lesions.nii.gz")
    assert not labels.any()


def test_brain_case_has_lesions():
    image, truth = brain_case()
    assert truth.mask(1).any()
    assert image.name.startswith("brain_9")
