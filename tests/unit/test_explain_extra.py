"""Further regions of an explanation: their share of the map, beside rows that stay as they are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from voxplain.attribution import explain
from voxplain.inference.compute import Compute
from voxplain.space import LabelMap, Volume
from voxplain.testing import phantoms
from voxplain.testing.models import SmallNet, describe

SHAPE = (7, 8, 9)
COMPUTE = Compute("cpu", "float64")


def test_extra_regions_are_summed_beside_the_others() -> None:
    grid = phantoms.oblique_grid(SHAPE, (0.7, 1.1, 2.3), 3)
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(size=(2, *SHAPE)), grid)
    model = describe(SmallNet(n_channels=2, n_classes=3, rank=3), n_channels=2)
    own = LabelMap(rng.integers(0, 3, (1, *SHAPE)), grid, {1: "one", 2: "two"})
    masks = {"left": rng.random(SHAPE) > 0.6, "right": rng.random(SHAPE) > 0.3}
    extra = LabelMap.from_masks({**masks, "empty": np.zeros(SHAPE, bool)}, grid)
    plain = explain(model, image, "all", "gradient", regions=own, compute=COMPUTE)
    both = explain(
        model, image, "all", "gradient", regions=own, extra=extra, keep=True, compute=COMPUTE
    )
    frame = both.table.frame
    is_extra = frame["region"].isin(["left", "right", "empty"])
    pd.testing.assert_frame_equal(frame[~is_extra].reset_index(drop=True), plain.table.frame)
    assert (frame.loc[is_extra].groupby("target", sort=False).size() == 6).all()
    for target in both.table.targets:
        size = np.abs(both[target].values)
        rows = frame[is_extra & (frame["target"] == target)].set_index(["region", "channel"])
        for name, mask in masks.items():
            for channel, values in zip(frame["channel"].unique(), size, strict=True):
                share = rows.loc[(name, channel), "share"]
                np.testing.assert_allclose(share, values[mask].sum() / size.sum(), rtol=1e-12)
        assert (rows.loc["empty", "share"] == 0).all()
