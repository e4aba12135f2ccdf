"""The map of each of some lesions, its numbers, and what of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.findings import findings_of
from voxplain.attribution.method import Method, Outcome, channels_of, settings_of
from voxplain.attribution.question import MapSum, Question
from voxplain.attribution.restore import restore_map
from voxplain.errors import LabelError
from voxplain.lesions.case import LesionCase
from voxplain.lesions.features import map_features, shell_features
from voxplain.lesions.unfinished import Part
from voxplain.records.attribution import Attribution
from voxplain.records.finding import Finding
from voxplain.records.provenance import Provenance
from voxplain.regions.distances import around
from voxplain.regions.lesion import TYPES, Lesion
from voxplain.space.box import Box

Maps = Literal["crop", "full", "none"]


@dataclass(frozen=True)
class SaliencySettings:
    """What is kept of each lesion's map.

    Parameters
    ----------
    edges_mm
        Ends of the shells around a lesion, rising from 0.
    maps
        ``crop``: the map around the lesion, on the model's grid; ``full``: beside it the whole
        map on the grid of the image, written as it comes; ``none``.
    crop_mm
        How far a cropped map reaches beyond the lesion.
    n_maps
        Lesions whose maps are kept: the largest, some of each type.
    """

    edges_mm: tuple[float, ...] = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0)
    maps: Maps = "crop"
    crop_mm: float = 20.0
    n_maps: int = 40

    def __post_init__(self) -> None:
        edges = np.asarray(self.edges_mm)
        if len(edges) < 2 or edges[0] != 0 or not (np.diff(edges) > 0).all():
            raise LabelError(
                f"shells end at rising distances from 0, e.g. 0,2,4; got {self.edges_mm}"
            )
        if not 0 <= self.crop_mm < np.inf or self.n_maps < 0:
            raise LabelError(
                f"crop_mm and n_maps are at least 0, got {self.crop_mm} and {self.n_maps}"
            )


def explained(
    case: LesionCase, label: str, method: Method, group: list[Lesion], kept: SaliencySettings,
    with_map: set[str],
) -> dict[str, Part]:  # fmt: skip
    """Explain lesions of the same windows by one method.

    Parameters
    ----------
    case
        Model, image and lesions.
    label, method
        The method and its name in the tables.
    group
        Lesions, see `groups_of`.
    kept
        What is kept of the maps.
    with_map
        Names of the lesions whose maps are kept.

    Returns
    -------
    dict
        What the method says of each lesion, by name.
    """
    question = case.question(group)
    channels = channels_of(method, question)
    maps = MapSum(question, len(channels))
    outcome = method.attribute(question, maps.add)
    box, values = maps.inner()
    remarks = _remarks(question, outcome, values, label)
    found: dict[str, Part] = {}
    for t, lesion in enumerate(group):
        target = question.targets[t]
        if box is None:  # pragma: no cover - a lesion's windows hold it
            raise LabelError(f"lesion {lesion.name} lies in no window")
        one = values[t].numpy()
        unit = method.unit.format(target.unit)
        numbers = map_features(one, box, channels, lesion, case.grid)
        errors = _share_errors(outcome, t, len(channels))
        rows = [
            {"unit": unit, **row, "share_error": error}
            for row, error in zip(numbers, errors, strict=True)
        ]
        shells = shell_features(one, box, channels, lesion, case.grid, kept.edges_mm)
        kept_map = full_map = None
        if lesion.name in with_map:
            provenance = Provenance(
                case.pipeline.info.name, case.pipeline.info.sha256, case.image.name,
                case.image.sha256(), label, {**settings_of(method), **outcome.settings},
            )  # fmt: skip
            score = question.linear[t][0]
            near = around(lesion.box, kept.crop_mm, case.grid.spacing, case.grid.shape)
            kept_map = Attribution(
                _cut(one, box, near), case.grid.crop(near.start, near.shape), channels,
                method.kind, unit, lesion.name, score, None, provenance,
            )  # fmt: skip
            if kept.maps == "full":
                whole = _cut(one, box, Box.whole(case.grid.shape))
                full_map = replace(
                    kept_map,
                    values=restore_map(whole, method.kind, case.grid, case.image.grid),
                    grid=case.image.grid,
                )
        found[lesion.name] = Part(rows, shells, remarks[lesion.name], kept_map, full_map)
    return found


def _share_errors(outcome: Outcome, target: int, n_channels: int) -> list[float]:
    """Return the errors of the channels' shares: 0 where nothing was drawn but noise."""
    if outcome.share_errors is None:
        return [0.0] * n_channels
    (of_image,) = outcome.share_errors[target]
    return [float(error) for error in of_image]


def _remarks(
    question: Question, outcome: Outcome, values: torch.Tensor, label: str
) -> dict[str, list[Finding]]:
    """Return the findings of each target, which say of which method they are."""
    flat = values.reshape(len(values), -1)
    totals = flat.sum(1, dtype=torch.float64).numpy()
    peaks = flat.abs().amax(1).double().numpy()
    gaps: list[float | None] = [None] * len(totals)
    if outcome.baseline_values is not None:
        scores = np.array([score for score, _ in question.linear])
        gaps = [float(g) for g in totals - (scores - np.array(outcome.baseline_values))]
    found: dict[str, list[Finding]] = {target.name: [] for target in question.targets}
    for one in findings_of(question, outcome, totals, peaks, gaps):
        if one.target is not None:
            found[one.target].append(replace(one, target=f"{one.target} by {label}"))
    return found


def _cut(values: NDArray[np.floating], box: Box, wanted: Box) -> NDArray[np.floating]:
    """Part of a map (n_channels, *box.shape) on another box; zero outside."""
    part = np.zeros((len(values), *wanted.shape), values.dtype)
    common = wanted.intersect(box)
    if common is not None:
        part[(slice(None), *common.within(wanted))] = values[(slice(None), *common.within(box))]
    return part


def with_map_of(lesions: Sequence[Lesion], kept: SaliencySettings) -> set[str]:
    """Return the names of the lesions whose maps are kept: types take turns, largest first."""
    if kept.maps == "none":
        return set()
    by_type = [
        sorted((one for one in lesions if one.type == kind), key=lambda one: -one.n_voxels)
        for kind in TYPES
    ]
    turns = [
        (turn, k, one.name) for k, of_type in enumerate(by_type) for turn, one in enumerate(of_type)
    ]
    return {name for _, _, name in sorted(turns)[: kept.n_maps]}
