"""The region table is that of the maps, whether they are kept or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Mask,
    SmoothGrad,
    VarGrad,
    explain,
)
from voxplain.attribution.method import Method
from voxplain.errors import GridError
from voxplain.inference.compute import Compute
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.regions import importance
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

SHAPE = (5, 7, 11)
GRID = oblique_grid(SHAPE)
WINDOW = WindowSettings((4, 5, 6), overlap=0.4)
CPU = Compute("cpu", batch_size=8)
METHODS: list[Method] = [
    Gradient(), SmoothGrad(n=2), VarGrad(n=2), InputXGradient(), IntegratedGradients(n=2),
    SmoothGrad(n=8, tolerance=1.0), IntegratedGradients(n=2, gap_tolerance=10.0),
]  # fmt: skip
BOXES = labels(GRID, 3)
SCATTERED = {
    name: np.random.default_rng(i).random(SHAPE) < 0.4 for i, name in enumerate(("left", "right"))
}
FINE = labels(GRID.respace([s * 0.45 for s in GRID.spacing]).reorient("SPL"), 4)
REGIONS = {
    "boxes": BOXES,
    "overlapping": LabelMap.from_masks(SCATTERED, GRID),
    "finer": FINE,
    "predicted": None,
}


@pytest.fixture
def image() -> Volume:
    return volume(GRID, n_channels=2, seed=4)


@pytest.fixture
def model() -> Model:
    return describe(SmallNet(3, 2, 3, seed=2), n_channels=2, window=WINDOW)


def targets() -> list[ClassTarget]:
    lesion = np.zeros(SHAPE, bool)
    lesion[:2, :2, 8:] = True
    return [
        ClassTarget("class_1"),
        ClassTarget("class_2", Everywhere(), score="probability"),
        ClassTarget("class_1", Mask(LabelMap.of(lesion, GRID), name="lesion")),
    ]


def run(model: Model, image: Volume, method: Method, regions: LabelMap | None,
        **settings: Any) -> Explanation:  # fmt: skip
    return explain(model, image, targets(), method, regions=regions, compute=CPU, **settings)


def equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one[list(other.columns)], other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_table_is_that_of_the_maps(model: Model, image: Volume, method: Method) -> None:
    result = run(model, image, method, BOXES)
    equal(result.table.frame, importance(list(result.attributions.values()), BOXES).frame)
    by_target = result.table.frame.groupby("target")["share"].sum()
    np.testing.assert_allclose(by_target, 1.0, rtol=1e-6)


@pytest.mark.parametrize("regions", REGIONS.values(), ids=REGIONS.keys())
def test_for_every_kind_of_regions(model: Model, image: Volume, regions: LabelMap | None) -> None:
    result = run(model, image, Gradient(), regions)
    used = result.regions if regions is None else regions
    equal(result.table.frame, importance(list(result.attributions.values()), used).frame)
    assert result.regions.grid == image.grid
    if regions is FINE:
        wanted = resample_labels(FINE, GRID).layers
        assert np.array_equal(result.regions.layers, wanted)
    if regions is None:
        assert result.regions is result.prediction


@pytest.mark.parametrize("method", METHODS[:5], ids=lambda m: m.name)
def test_maps_need_not_be_kept(model: Model, image: Volume, method: Method) -> None:
    kept = run(model, image, method, BOXES, keep=True)
    spared = run(model, image, method, BOXES, keep=False)
    assert not spared.attributions
    assert set(kept.attributions) == {t.name for t in targets()}
    pd.testing.assert_frame_equal(spared.table.frame, kept.table.frame)
    assert [t.gap for t in spared.targets] == [t.gap for t in kept.targets]
    assert [t.score for t in spared.targets] == [t.score for t in kept.targets]


def test_large_maps_are_not_kept_unasked(
    model: Model, image: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 3 * 2 * GRID.n_voxels * 4
    monkeypatch.setattr("voxplain.attribution.one._KEEP_BYTES", n_bytes)
    assert run(model, image, Gradient(), BOXES).attributions
    monkeypatch.setattr("voxplain.attribution.one._KEEP_BYTES", n_bytes - 1)
    assert not run(model, image, Gradient(), BOXES).attributions
    assert run(model, image, Gradient(), BOXES, keep=True).attributions


def test_regions_that_lie_elsewhere_are_refused(model: Model, image: Volume) -> None:
    away = labels(GRID.crop((900, 0, 0), SHAPE), 2)
    with pytest.raises(GridError):
        run(model, image, Gradient(), away)


# -- another grid ---------------------------------------------------------------------------
@pytest.fixture
def coarse() -> Model:
    return wrap(SmallNet(3, 2, 3, seed=2), classes=["background", "class_1", "class_2"],
                channels=["channel_0", "channel_1"], window=WINDOW, check=False,
                orientation="PSR", spacing=(1.3, 2.0, 0.9))  # fmt: skip


def test_contributions_keep_their_sum_on_the_image(coarse: Model, image: Volume) -> None:
    result = run(coarse, image, InputXGradient(), BOXES)
    assert coarse.grid_of(GRID).shape != SHAPE
    sums = result.table.frame.groupby("target", sort=False)[["positive", "negative"]].sum()
    for name, attribution in result.attributions.items():
        assert attribution.grid == image.grid
        total = sums.loc[name].sum()
        assert attribution.total() == pytest.approx(total, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("regions", [BOXES, None], ids=["boxes", "predicted"])
def test_results_lie_on_the_image(coarse: Model, image: Volume, regions: LabelMap | None) -> None:
    result = run(coarse, image, Gradient(), regions)
    assert result.regions.grid == image.grid
    for attribution in result.attributions.values():
        assert attribution.grid == image.grid
        assert attribution.values.shape == image.data.shape
    if regions is None:
        assert result.prediction is not None
        assert result.prediction.grid == image.grid
    np.testing.assert_allclose(result.table.frame.groupby("target")["share"].sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAL", "IPR"])
def test_another_order_of_axes_changes_nothing(image: Volume, orientation: str) -> None:
    """A model that wants its axes in another order, but works voxel by voxel."""
    from voxplain.testing.models import Quadratic

    def result(direction: str | None) -> Explanation:
        model = wrap(Quadratic([[1.0, 0.5], [0.5, 1.0], [0.25, 0.25]]),
                     classes=["background", "class_1", "class_2"],
                     channels=["channel_0", "channel_1"], window=WINDOW, check=False,
                     orientation=direction)  # fmt: skip
        return run(model, image, InputXGradient(), BOXES)

    plain, turned = result(None), result(orientation)
    for name, attribution in plain.attributions.items():
        np.testing.assert_allclose(turned[name].values, attribution.values, rtol=1e-5, atol=1e-6)
    equal(turned.table.frame, plain.table.frame)
    assert turned.prediction is not None
    assert plain.prediction is not None
    assert np.array_equal(turned.prediction.layers, plain.prediction.layers)


def test_provenance_says_how(model: Model, image: Volume) -> None:
    result = run(model, image, SmoothGrad(n=2), BOXES, seed=11)
    made = result.provenance
    assert made.seed == 11
    assert made.method == "smoothgrad"
    assert made.image_sha256 == image.sha256()
    assert made.model_sha256 == model.info.sha256
    wanted = {"n": 2, "noise": 0.1, "antithetic": False, "tolerance": None,
              "window_size": [4, 5, 6], "window_pad_value": 0.0,
              "window_overlap": 0.4, "window_blend": "gaussian", "window_scheme": "monai",
              "device": "cpu", "precision": "float32",
              "batch_size": 8}  # fmt: skip
    assert {k: made.parameters[k] for k in wanted} == wanted
    assert made.cost.seconds > 0
    assert made.cost.peak_memory_bytes > 0
    assert all(a.provenance is made for a in result.attributions.values())


def test_two_axes() -> None:
    grid = Grid((7, 11), np.diag([0.7, 1.1, 1.0]))
    image = volume(grid, n_channels=2)
    model = describe(SmallNet(2, 2, 3, seed=2), rank=2, n_channels=2, window=(4, 5))
    regions = labels(grid, 2)
    result = explain(model, image, "everywhere", SmoothGrad(n=2), regions=regions, compute=CPU)
    equal(result.table.frame, importance(list(result.attributions.values()), regions).frame)
