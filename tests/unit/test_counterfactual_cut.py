"""Slices of images, their place in the picture of a network, and the way back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from voxplain.counterfactual.cut import Fit, fit_of, place, planes_of
from voxplain.counterfactual.preparation import Preparation, read_preparation
from voxplain.errors import DataError, GridError, ModelError
from voxplain.space import Grid, Volume
from voxplain.space.plane import Plane
from voxplain.testing import phantoms
from voxplain.testing.strategies import grids

NAMES = ("axial", "coronal", "sagittal")
WORLD_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


def preparation(**more) -> Preparation:
    given_values = {
        "plane": "axial", "size": (16, 12), "pixel_mm": None, "low": -100.0, "high": 300.0,
    }  # fmt: skip
    return Preparation(**{**given_values, **more})


# -- which slices -----------------------------------------------------------------------------
@given(grid=grids(), name=st.sampled_from(NAMES))
def test_slices_go_along_the_world_axis_and_stack_back_to_the_image(grid, name):
    planes = planes_of(grid, name)
    at = [float(grid.to_world(plane.index)[WORLD_AXIS[name]]) for plane in planes]
    assert at == sorted(at)
    array = np.arange(grid.n_voxels).reshape(grid.shape)
    again = np.full(grid.shape, -1)
    for plane in planes:
        place(plane, again, plane.take(array))
    np.testing.assert_array_equal(again, array)


def test_a_picture_is_one_slice_as_it_is():
    grid = phantoms.oblique_grid((5, 7), (0.7, 1.1))
    (plane,) = planes_of(grid, "axial")
    array = np.arange(35.0).reshape(5, 7)
    assert plane.name == "picture"
    np.testing.assert_array_equal(plane.take(array), array)
    again = np.zeros((5, 7))
    place(plane, again, array)
    np.testing.assert_array_equal(again, array)


def test_wrong_planes_and_shapes_are_refused():
    grid = phantoms.oblique_grid()
    with pytest.raises(GridError, match="axial, coronal, sagittal, not 'oblique'"):
        planes_of(grid, "oblique")
    plane = planes_of(grid, "axial")[0]
    with pytest.raises(GridError, match=r"array of shape \(5, 7, 11\), got \(5, 7\)"):
        place(plane, np.zeros((5, 7)), np.zeros((7, 5)))
    with pytest.raises(GridError, match=r"picture of shape \(7, 5\), got \(5, 7\)"):
        place(plane, np.zeros(grid.shape), np.zeros((5, 7)))
    fit = fit_of(plane, (8, 8), None)
    with pytest.raises(DataError, match=r"shape \(8, 8\), got \(7, 5\)"):
        fit.back(np.zeros((7, 5)))


# -- the fit ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("letters", ["RAS", "LPS", "SAR", "IPL", "ALS"])
def test_a_circle_in_mm_stays_a_circle(name, letters):
    grid = phantoms.oblique_grid((60, 50, 40), (0.7, 1.1, 1.6), seed=3).reorient(letters)
    middle = grid.to_world((np.asarray(grid.shape) - 1) / 2)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    ball = np.linalg.norm(grid.to_world(at) - middle, axis=-1) < 18.0
    planes = planes_of(grid, name)
    plane = planes[len(planes) // 2]
    for pixel_mm in (None, 0.5, 1.3):
        fit = fit_of(plane, (96, 80), pixel_mm)
        step = pixel_mm or max(mm / n for mm, n in zip(plane.size_mm, (96, 80), strict=True))
        shown = fit.put(plane.take(ball).astype(np.float32), 0.0) > 0.5
        rows, columns = np.nonzero(shown)
        if pixel_mm != 0.5:  # where the crop cuts the ball
            assert np.ptp(rows) + 1 == pytest.approx(36 / step, abs=3)
            assert np.ptp(columns) + 1 == pytest.approx(36 / step, abs=3)
            assert shown.sum() == pytest.approx(math.pi * (18 / step) ** 2, rel=0.05)


@given(grid=grids(max_length=40), name=st.sampled_from(NAMES))
def test_the_slice_fits_in_centred_with_its_aspect_ratio(grid, name):
    plane = planes_of(grid, name)[0]
    fit = fit_of(plane, (24, 32), None)
    assert fit.native == plane.take(np.zeros(grid.shape)).shape
    height, width = plane.size_mm
    step = max(height / 24, width / 32)
    assert fit.scaled == (max(1, round(height / step)), max(1, round(width / step)))
    assert fit.scaled[0] == 24 or fit.scaled[1] == 32
    rows, columns = np.nonzero(fit.inside())
    for found, scaled, n in ((rows, fit.scaled[0], 24), (columns, fit.scaled[1], 32)):
        assert (found.min(), np.ptp(found) + 1) == ((n - scaled) // 2, scaled)
    assert (fit.put(np.ones(fit.native), -1.0) == np.where(fit.inside(), 1, -1)).all()


def test_nothing_is_interpolated_where_nothing_is_scaled():
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(9, 7)).astype(np.float32)
    grid = Grid((9, 7), np.diag([1.5, 1.5, 1]))
    for size in ((9, 7), (12, 16), (6, 5)):
        fit = fit_of(planes_of(grid, "axial")[0], size, 1.5)
        assert fit.scaled == fit.native == (9, 7)
        inside = fit.back(fit.put(np.ones((9, 7)), 0.0)) > 0
        np.testing.assert_array_equal(
            fit.back(fit.put(picture, -1.0)), np.where(inside, picture, 0)
        )
        assert inside.sum() == min(9, size[0]) * min(7, size[1])
        np.testing.assert_array_equal(fit.put_mask(picture > 0), fit.put(picture, -1.0) > 0)


@pytest.mark.parametrize(("native", "scaled"), [((40, 30), (24, 20)), ((13, 17), (39, 20))])
def test_a_slope_goes_there_and_back(native, scaled):
    """Linear interpolation keeps a plane a + b·row + c·column, away from the edges."""
    fit = Fit(native, scaled, (2, 3), (44, 28))
    rows, columns = np.meshgrid(
        *[(np.arange(n) + 0.5) / n for n in native], indexing="ij", sparse=True
    )
    slope = rows - 0.6 * columns
    picture = fit.put(slope, -5.0)
    own_rows, own_columns = np.meshgrid(
        (np.arange(44) - 1.5) / scaled[0], (np.arange(28) - 2.5) / scaled[1], indexing="ij"
    )
    deep = ndimage.binary_erosion(fit.inside(), iterations=3)
    np.testing.assert_allclose(picture[deep], (own_rows - 0.6 * own_columns)[deep], atol=1e-5)
    assert (picture[~fit.inside()] == -5).all()
    np.testing.assert_allclose(fit.back(picture)[6:-6, 6:-6], slope[6:-6, 6:-6], atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_masks_take_the_nearest_pixel_as_torch_does(h, w, rows, columns):
    mask = np.random.default_rng([h, w]).random((h, w)) > 0.5
    fit = Fit((h, w), (rows, columns), (0, 0), (rows, columns))
    other = nn.functional.interpolate(
        torch.from_numpy(mask[None, None]).double(), (rows, columns), mode="nearest-exact"
    )
    agree = fit.put_mask(mask) == (other[0, 0].numpy() > 0)
    assert agree.mean() >= 0.95  # ties between two pixels may fall either way


def test_means_survive_shrinking():
    """Smoothing before it: one bright pixel of 64 × 64 keeps its sum, in new pixels."""
    picture = np.zeros((64, 64), np.float32)
    picture[30, 35] = 1
    fit = Fit((64, 64), (16, 16), (0, 0), (16, 16))
    assert fit.put(picture, 0.0).sum() == pytest.approx(1 / 16, rel=0.1)


def test_what_the_crop_cut_off_comes_back_as_zero():
    fit = Fit((10, 10), (20, 20), (-4, 0), (12, 20))
    back = fit.back(np.ones((12, 20)))
    assert (back[2:8] == 1).all()
    assert not back[:2].any()
    assert not back[8:].any()


# -- pictures ---------------------------------------------------------------------------------
def test_pictures_have_the_window_and_the_padding():
    grid = phantoms.oblique_grid((12, 8, 3), (1, 1, 2))
    values = np.linspace(-300, 500, 12 * 8 * 3, dtype=np.float32).reshape(1, 12, 8, 3)
    made = preparation(size=(10, 14), pixel_mm=1.0)
    cuts = list(made.pictures(Volume(values, grid), [2, 0]))
    assert [cut.index for cut in cuts] == [2, 0]
    for cut in cuts:
        assert cut.fit.scaled == cut.fit.native == (8, 12)
        own = cut.plane.take(values[0])
        wanted = np.full((10, 14), -1.0)
        wanted[1:9, 1:13] = np.clip(2 * (own + 100.0) / 400 - 1, -1, 1)
        np.testing.assert_allclose(cut.picture, wanted, atol=1e-6)
        assert cut.picture.dtype == np.float32
        assert cut.inside.sum() == 96
        inner = (own > -100) & (own < 300)
        back = made.intensity(cut.fit.back(cut.picture))
        np.testing.assert_allclose(back[inner], own[inner], atol=1e-3)
    assert made.step == 200


def test_a_3d_model_prepares_the_volume(tmp_path):
    folder = card(tmp_path, rank=3, spacing=[2.0, 2.0, 2.0])
    image = phantoms.volume(Grid((12, 8, 6), np.diag([1.0, 1, 1, 1])))
    made = preparation(model=str(folder), size=(4, 6), low=-1.0, high=1.0)
    cuts = list(made.pictures(image))
    assert [cut.plane.grid.shape for cut in cuts] == [(6, 4, 3)] * 3
    prepared = made.prepared(image)
    assert prepared.grid.shape == (6, 4, 3)
    np.testing.assert_allclose(
        cuts[1].picture, np.clip(cuts[1].plane.take(prepared.data[0]), -1, 1), atol=1e-6
    )
    with pytest.raises(ModelError, match="2D image for a 3D model"):
        list(made.pictures(phantoms.volume(phantoms.oblique_grid((5, 7), (1, 1)))))


def test_a_2d_model_prepares_each_slice(tmp_path):
    folder = card(tmp_path, rank=2, size=[4, 6])
    image = phantoms.volume(Grid((12, 8, 3), np.diag([1.0, 1, 1, 1])))
    made = preparation(model=str(folder), size=(4, 6), low=-1.0, high=1.0)
    cuts = list(made.pictures(image))
    assert len(cuts) == 3
    for cut in cuts:
        own = cut.plane.take(image.data[0]) / 10  # as the card scales
        halved = ndimage.zoom(own, 0.5, order=1, grid_mode=True, mode="nearest")
        np.testing.assert_allclose(cut.picture, np.clip(halved, -1, 1), atol=1e-5)
        assert cut.fit == Fit((8, 12), (4, 6), (0, 0), (4, 6))
        assert cut.inside.all()
    flat = phantoms.volume(Grid((8, 12), np.eye(3)))
    (cut,) = made.pictures(flat)
    assert cut.plane.name == "picture"
    assert cut.picture.shape == (4, 6)
    with pytest.raises(DataError, match=r"to \(4, 6\) and data\.size is \(16, 12\); set data"):
        list(preparation(model=str(folder)).pictures(image))
    with pytest.raises(DataError, match=r"leave out data\.pixel_mm"):
        list(preparation(model=str(folder), size=(4, 6), pixel_mm=1.0).pictures(image))
    turned = card(tmp_path / "turned", rank=2, size=[4, 6], orientation="LP")
    with pytest.raises(DataError, match="turns or crops"):
        list(preparation(model=str(turned), size=(4, 6)).pictures(image))


def card(folder, **given_input):
    """Write a card whose preparation divides by 10."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    rank = given_input["rank"]
    kind = nn.Conv3d if rank == 3 else nn.Conv2d
    save_file(kind(1, 2, 3, padding=1).state_dict(), folder / "weights.safetensors")
    lines = {
        "name": "scaler",
        "kind": "segmentation",
        "network": {
            "target": f"torch.nn.{kind.__name__}",
            "arguments": {
                "in_channels": 1,
                "out_channels": 2,
                "kernel_size": 3,
                "padding": 1,
            },
        },
        "weights": "weights.safetensors",
        "input": {
            "channels": ["ct"],
            "intensity": [{"scale": {"from": [-10, 10], "to": [-1, 1]}}],
            **given_input,
        },
        "activation": "softmax",
        "classes": ["background", "organ"],
    }
    (folder / "model.yaml").write_text(json.dumps(lines))
    return folder


def test_what_cannot_be_cut_is_told():
    two = phantoms.volume(n_channels=2)
    with pytest.raises(DataError, match=r"expected one channel, got 2 \(channel_0, channel_1\)"):
        list(preparation().pictures(two))
    with pytest.raises(DataError, match="no slice 11, 40; slices are numbered 0 to 10"):
        list(preparation().pictures(phantoms.volume(), [0, 11, 40]))
    for low, high in ((5.0, 5.0), (2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(DataError, match="expected low < high"):
            preparation(low=low, high=high)


def test_a_preparation_is_kept(tmp_path):
    made = preparation(pixel_mm=0.1 + 0.2, low=-57.3)
    made.write(tmp_path / "preparation.json")
    assert read_preparation(tmp_path / "preparation.json") == made
    (tmp_path / "torn.json").write_text('{"plane": "axial"')
    (tmp_path / "other.json").write_text('{"plane": "axial", "size": [1, 2]}')
    for name in ("torn.json", "other.json", "none.json"):
        with pytest.raises(DataError, match="cannot be read as a preparation"):
            read_preparation(tmp_path / name)


def test_every_plane_is_upright():
    """A voxel marked at the top front right of the patient lies where a reader looks for it."""
    grid = phantoms.oblique_grid((6, 7, 8), (1, 1, 1), seed=1).reorient("PIR")
    corner = grid.to_index(np.asarray(phantoms.oblique_grid((6, 7, 8), (1, 1, 1), seed=1)
                                      .to_world([5, 6, 7])))  # fmt: skip
    marked = np.zeros(grid.shape)
    marked[tuple(np.rint(corner).astype(int))] = 1
    for name in NAMES:
        last = planes_of(grid, name)[-1]
        assert isinstance(last, Plane)
        assert last.take(marked)[0, 0] == 1
