from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from voxplain.records.attribution import Attribution
from voxplain.records.explanation import Explanation, TargetSummary
from voxplain.records.finding import Finding
from voxplain.records.provenance import Cost, Provenance
from voxplain.records.region_table import RegionTable
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.phantoms import oblique_grid

Maps = Mapping[str, NDArray[Any]]


def table_of(regions: LabelMap, maps: Maps, channels: tuple[str, ...], case: str) -> RegionTable:
    """The definition of every column, voxel by voxel."""
    rows = []
    for target, values in maps.items():
        total = np.abs(values).sum()
        for label, region in sorted(regions.names.items()):
            mask = regions.mask(label)
            for channel, plane in zip(channels, values, strict=True):
                inside = plane[mask].astype(float)
                rows.append(
                    {
                        "case": case, "model": "net", "method": "gradient", "target": target,
                        "region": region, "channel": channel,
                        "share": np.abs(inside).sum() / total if total else np.nan,
                        "mean": np.abs(inside).mean() if mask.any() else np.nan,
                        "positive": inside[inside > 0].sum(), "negative": inside[inside < 0].sum(),
                        "n_voxels": int(mask.sum()),
                    }
                )  # fmt: skip
    return RegionTable(pd.DataFrame(rows))


def make(
    *,
    grid: Grid | None = None,
    names: Mapping[int, str] | None = None,
    maps: Maps | None = None,
    image: NDArray[Any] | None = None,
    channels: tuple[str, ...] = ("ct",),
    case: str = "patient 7",
    keep: tuple[str, ...] | None = None,
    findings: tuple[Finding, ...] = (),
    gap: float | None = None,
    labels: NDArray[Any] | None = None,
) -> Explanation:
    """An explanation with two boxes as regions; maps are seeded noise with a peak in each."""
    grid = oblique_grid() if grid is None else grid
    names = names or {1: "liver", 2: "spleen"}
    rng = np.random.default_rng(3)
    if labels is None:
        labels = np.zeros(grid.shape, np.uint8)
        labels[tuple(slice(0, n // 2) for n in grid.shape)] = 1
        labels[tuple(slice(n // 2 + 1, n) for n in grid.shape)] = 2
    regions = LabelMap.of(labels, grid, names)
    shape = (len(channels), *grid.shape)
    if maps is None:
        maps = {}
        for label in (1, 2):
            values = rng.normal(0, 0.05, shape)
            values[:, labels == label] += rng.normal(0.3, 1, (labels == label).sum())
            maps[names[label]] = values
    if image is None:
        image = rng.normal(0, 1, shape)
    volume = Volume(image, grid, channels, case)
    provenance = Provenance(
        "net", "ab" * 32, case, volume.sha256(), "gradient", {"window": {"size": [4, 4, 4]}}, 5,
        Cost(12, 24, 75.0, 1_500_000_000), {"voxplain": "0.1.0"}, "2025-01-02T03:04:05+00:00",
    )  # fmt: skip
    attributions = {
        name: Attribution(
            np.asarray(values), grid, channels, "sensitivity", "logit per intensity", name, 1.5,
            gap, provenance,
        )
        for name, values in maps.items()
        if keep is None or name in keep
    }  # fmt: skip
    return Explanation(
        image=volume,
        prediction=regions,
        regions=regions,
        table=table_of(regions, maps, channels, case),
        targets=tuple(
            TargetSummary(n, f"sum over the voxels of {n}", 1.5 + i, gap, 6)
            for i, n in enumerate(maps)
        ),
        kind="sensitivity" if gap is None else "contribution",
        unit="logit per intensity",
        method="gradient",
        provenance=provenance,
        attributions=attributions,
        findings=findings,
    )


@pytest.fixture
def build() -> Callable[..., Explanation]:
    return make
