"""What the viewer is given lies where the image lies and has the values of the maps."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from voxplain.records.explanation import Explanation
from voxplain.report.layers import Layer, pack
from voxplain.report.scale import limit
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.testing.phantoms import oblique_grid

Build = Callable[..., Explanation]
ROOMY = 1e9


def read(layer: Layer) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer.text)))


def test_maps_keep_their_units_to_half_a_step(build: Build) -> None:
    for scale in (1e-9, 1.0, 1e7):
        values = np.random.default_rng(1).normal(size=(1, 5, 7, 11)) * scale
        explanation = build(maps={"liver": values})
        layers = pack(explanation, ROOMY)
        (layer,) = layers.maps
        image = read(layer)
        shown = image.get_fdata() * layer.unit
        end = limit(values[0])
        expected = np.clip(values[0][layers.crop.slices], -end, end)
        assert np.abs(shown - expected).max() <= 0.5001 * end / 127
        assert image.get_data_dtype() == np.int8
        assert 1 <= end / layer.unit < 10.0001  # far above what a shader can tell apart
        assert layer.n_beyond == (np.abs(values) > end).sum()


def test_every_layer_lies_on_the_patient(build: Build) -> None:
    grid = oblique_grid((15, 13, 17), seed=4).reorient("LPS")
    image = np.zeros((1, 15, 13, 17))
    image[0, 5:11, 4:9, 3:12] = 1.0
    labels = np.zeros(grid.shape, np.uint8)
    labels[6, 5, 4], labels[9, 7, 10] = 1, 2
    values = np.zeros((1, *grid.shape))
    values[0, 8, 6, 7] = -2.0
    explanation = build(grid=grid, image=image, labels=labels, maps={"liver": values})
    layers = pack(explanation, ROOMY)
    assert layers.crop.start == (3, 2, 1)
    assert layers.crop.stop == (13, 11, 14)
    files = [read(layers.image), read(layers.labels[0][0]), read(layers.maps[0])]
    peaks = [None, (9, 7, 10), (8, 6, 7)]
    for file, peak in zip(files, peaks, strict=True):
        assert np.allclose(file.affine, grid.crop(layers.crop.start, layers.crop.shape).affine,
                           atol=1e-4)  # fmt: skip
        if peak:
            found = np.unravel_index(np.abs(file.get_fdata()).argmax(), file.shape)
            world = file.affine[:3, :3] @ found + file.affine[:3, 3]
            assert world == pytest.approx(grid.to_world(peak), abs=1e-3)


def test_crop_never_cuts_a_region_and_says_what_it_leaves_out(build: Build) -> None:
    grid = Grid((20, 21, 22), np.eye(4))
    image = np.zeros((1, 20, 21, 22))
    image[0, 9:12, 9:12, 9:12] = 1.0
    labels = np.zeros(grid.shape, np.uint8)
    labels[2, 10, 10], labels[10, 10, 10] = 1, 2
    values = np.zeros((1, *grid.shape))
    values[0, 10, 10, 10], values[0, 10, 20, 10] = 3.0, 1.0
    layers = pack(build(grid=grid, image=image, labels=labels, maps={"a": values}), ROOMY)
    assert layers.crop.start == (0, 7, 7)
    assert layers.crop.stop == (14, 14, 14)
    assert layers.outside == pytest.approx(1 / 4)


def test_image_is_eight_bits_in_its_own_units(build: Build) -> None:
    hu = np.linspace(-1000, 990, 5 * 7 * 11).reshape(1, 5, 7, 11)
    layers = pack(build(image=hu), ROOMY)
    file = read(layers.image)
    assert file.get_data_dtype() == np.uint8
    assert np.abs(file.get_fdata() - hu[0][layers.crop.slices]).max() <= 4.1


def test_labels_are_renumbered_with_their_names(build: Build) -> None:
    grid = oblique_grid()
    labels = np.zeros(grid.shape, np.int32)
    labels[0, 0, 0], labels[4, 6, 10] = 700, 12
    explanation = build(labels=labels, names={700: "far", 12: "near", 40: "absent"},
                        maps={"near": np.ones((1, 5, 7, 11))})  # fmt: skip
    ((layer, names),) = pack(explanation, ROOMY).labels
    data = read(layer).get_fdata()
    assert names == ("background", "near", "absent", "far")
    assert (data[0, 0, 0], data[4, 6, 10], np.count_nonzero(data)) == (3, 1, 2)


def test_regions_that_differ_from_the_prediction_are_a_layer_of_their_own(build: Build) -> None:
    explanation = build()
    other = LabelMap.of(np.ones(explanation.image.grid.shape, np.uint8), explanation.image.grid,
                        {1: "everything"})  # fmt: skip
    fields = {**vars(explanation), "image": explanation.image}
    fields.pop("_image")
    layers = pack(Explanation(**{**fields, "regions": other}), ROOMY)
    assert [layer.name for layer, _ in layers.labels] == ["prediction", "regions"]


def test_too_much_is_averaged_over_cubes_until_it_fits(build: Build) -> None:
    grid = oblique_grid((23, 25, 27))
    rng = np.random.default_rng(0)
    maps = {f"t{i}": rng.normal(size=(1, *grid.shape)) for i in range(4)}
    explanation = build(grid=grid, maps=maps)
    full = pack(explanation, ROOMY)
    small = pack(explanation, full.n_bytes / 3)
    assert small.n_bytes <= full.n_bytes / 3
    assert small.map_factor >= 2
    assert (full.image_factor, full.map_factor) == (1, 1)
    layer, factor = small.maps[0], small.map_factor
    file = read(layer)
    first = maps["t0"][0][small.crop.slices][:factor, :factor, :factor].mean()
    assert file.get_fdata()[0, 0, 0] * layer.unit == pytest.approx(first, abs=layer.limit / 250)
    centre = np.asarray(small.crop.start) + (factor - 1) / 2  # of the first cube
    assert file.affine[:3, 3] == pytest.approx(grid.to_world(centre), abs=1e-4)
    assert file.header.get_zooms() == pytest.approx(np.asarray(grid.spacing) * factor, rel=1e-5)


def test_even_no_room_at_all_ends(build: Build) -> None:
    layers = pack(build(), 10)
    assert read(layers.maps[0]).shape == (1, 1, 1)


def test_map_of_zeros(build: Build) -> None:
    (layer,) = pack(build(maps={"liver": np.zeros((1, 5, 7, 11))}), ROOMY).maps
    assert layer.limit == 0
    assert not read(layer).get_fdata().any()
