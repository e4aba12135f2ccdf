"""Peaks, shares and shells of a map around a lesion, against loops over voxels."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.lesions.features import border_distance_mm, map_features, shell_features
from voxplain.regions.lesion import Lesion
from voxplain.regions.tissue import tissue_mask
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((9, 10, 12))
EDGES = (0.0, 1.5, 3.0, 7.0)


def random_lesion(seed: int, grid: Grid = GRID) -> tuple[Lesion, np.ndarray]:
    rng = np.random.default_rng(seed)
    whole = np.zeros(grid.shape, bool)
    start = [int(rng.integers(0, n - 3)) for n in grid.shape]
    part = rng.random((3,) * grid.rank) < 0.6
    part.flat[0] = True
    whole[tuple(slice(a, a + 3) for a in start)] = part
    box = Box.around(whole)
    assert box is not None
    return Lesion("P1", "TP", box, whole[box.slices]), whole


def distances(whole: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance of every voxel to the nearest voxel of a mask, by a loop, in mm."""
    inside = np.argwhere(whole)
    found = np.zeros(whole.shape)
    for index in np.ndindex(whole.shape):
        steps = (inside - index) * np.asarray(grid.spacing)
        found[index] = np.sqrt((steps**2).sum(1).min())
    return found


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_numbers_of_a_random_map(seed: int, rank: int) -> None:
    grid = GRID if rank == 3 else Grid((9, 12), np.diag([0.7, 1.3, 1.0]))
    rng = np.random.default_rng(100 + seed)
    lesion, whole = random_lesion(seed, grid)
    values = rng.normal(size=(2, *grid.shape))
    values[1] *= 0.1
    # the map is given on a box that cuts the shells
    box = Box(tuple(max(0, a - 2) for a in lesion.box.start), grid.shape)
    full = np.zeros_like(values)
    index = (slice(None), *box.slices)
    full[index] = values[index]
    rows = map_features(full[index], box, ("a", "b"), lesion, grid)
    distance = distances(whole, grid)
    sizes = np.abs(full).reshape(2, -1).sum(1)
    for c, row in enumerate(rows):
        assert row["channel"] == "ab"[c]
        assert row["peak_positive"] == full[c].max()
        assert row["peak_negative"] == full[c].min()
        assert row["mean_inside"] == pytest.approx(full[c][whole].mean(), rel=1e-12)
        assert row["share"] == pytest.approx(sizes[c] / sizes.sum(), rel=1e-12)
        place = np.unravel_index(np.abs(full[c]).argmax(), grid.shape)
        if not whole[place]:
            assert row["peak_distance_mm"] == pytest.approx(distance[place])
    shells = shell_features(full[index], box, ("a", "b"), lesion, grid, EDGES)
    assert [(r["from_mm"], r["to_mm"]) for r in shells[::2]] == [(0, 0), (0, 1.5), (1.5, 3), (3, 7)]
    for row in shells:
        c = "ab".index(row["channel"])
        low, high = row["from_mm"], row["to_mm"]
        chosen = whole if high == 0 else (distance > low) & (distance <= high)
        assert row["n_voxels"] == chosen.sum()
        if chosen.any():
            part = full[c][chosen]
            assert row["mean"] == pytest.approx(part.mean(), abs=1e-12)
            assert row["mean_positive"] == pytest.approx(part.clip(0).mean(), abs=1e-12)
            assert row["mean_negative"] == pytest.approx(part.clip(max=0).mean(), abs=1e-12)


def test_distance_to_the_border_is_negative_inside() -> None:
    grid = Grid((11, 11, 11), np.diag([1.0, 2.0, 0.5, 1.0]))
    mask = np.ones((5, 5, 5), bool)
    lesion = Lesion("P1", "FP", Box((3, 3, 3), (8, 8, 8)), mask)
    # from the middle the nearest voxel outside is 3 steps of 0.5 mm away
    assert border_distance_mm(np.array([5, 5, 5]), lesion, grid) == pytest.approx(-1.5)
    assert border_distance_mm(np.array([3, 5, 5]), lesion, grid) == pytest.approx(-1.0)
    assert border_distance_mm(np.array([0, 5, 5]), lesion, grid) == pytest.approx(3.0)
    assert border_distance_mm(np.array([8, 9, 5]), lesion, grid) == pytest.approx(np.hypot(1, 4))


def test_a_map_of_zeros_has_no_share_and_no_peak() -> None:
    lesion, _ = random_lesion(5)
    rows = map_features(np.zeros((2, *GRID.shape)), Box.whole(GRID.shape), "ab", lesion, GRID)
    for row in rows:
        assert row["peak_positive"] == row["peak_negative"] == row["mean_inside"] == 0
        assert np.isnan(row["share"])
        assert np.isnan(row["peak_distance_mm"])


def test_a_map_of_one_sign() -> None:
    lesion, _ = random_lesion(6)
    values = -np.ones((1, *GRID.shape))
    (row,) = map_features(values, Box.whole(GRID.shape), "a", lesion, GRID)
    assert (row["peak_positive"], row["peak_negative"]) == (0.0, -1.0)
    assert row["share"] == 1.0


def test_a_shell_outside_of_the_image_is_empty() -> None:
    grid = Grid((4, 4, 4), np.diag([5.0, 5.0, 5.0, 1.0]))
    lesion = Lesion("P1", "TP", Box((0, 0, 0), (4, 4, 4)), np.ones((4, 4, 4), bool))
    values = np.ones((1, 4, 4, 4))
    rows = shell_features(values, Box.whole(grid.shape), "a", lesion, grid, (0.0, 2.0))
    assert [row["n_voxels"] for row in rows] == [64, 0]
    assert np.isnan(rows[1]["mean"])


def test_not_a_number_is_not_lost() -> None:
    lesion, _ = random_lesion(6)
    values = -np.ones((2, *GRID.shape))
    values[0, 1, 2, 3] = np.nan
    bad, good = map_features(values, Box.whole(GRID.shape), "ab", lesion, GRID)
    for name in ("peak_positive", "peak_negative", "share", "peak_distance_mm"):
        assert np.isnan(bad[name]), name
    assert good["peak_negative"] == -1.0


@pytest.mark.parametrize("kind", ["stripped", "z-scored", "with a skull"])
def test_tissue_of_an_image_without_a_mask(kind: str) -> None:
    rng = np.random.default_rng(0)
    distance = np.sqrt(((np.indices(GRID.shape).T - [4, 4.5, 5.5]) ** 2).sum(-1)).T
    head = distance < 4.4
    data = np.where(head, rng.normal(100, 20, GRID.shape), 0.0)
    if kind == "z-scored":
        data[head] = (data[head] - data[head].mean()) / data[head].std()
    elif kind == "with a skull":
        data += np.abs(rng.normal(0, 4, GRID.shape))
    image = Volume(data[None].astype(np.float32), GRID)
    found = tissue_mask(image).mask("tissue")
    assert np.mean(found == head) > 0.98
