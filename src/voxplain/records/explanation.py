"""Everything one explained case gives back: what a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from voxplain.errors import GridError, ImageError, RecordError, TargetError
from voxplain.records.archive import (
    INDEX,
    file_sha256,
    grid_from_dict,
    grid_to_dict,
    read_array,
    read_json,
    slugs,
    write_json,
)
from voxplain.records.attribution import Attribution, Kind
from voxplain.records.class_score import ClassScore
from voxplain.records.display import render
from voxplain.records.finding import Finding
from voxplain.records.player_table import PlayerTable
from voxplain.records.provenance import Provenance
from voxplain.records.region_table import RegionTable
from voxplain.space.labelmap import LabelMap, nearest
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume

_FORM, _VERSION = "voxplain explanation", 1
_TABLE = ("regions.csv", "regions.parquet")
_PLAYERS = ("players.csv", "players.parquet")


@dataclass(frozen=True)
class TargetSummary:
    """One explained target: its words and numbers, also where no map was kept.

    Parameters
    ----------
    name
        Name of the target in tables and file names.
    description
        One sentence: score, voxels, reduction.
    score
        The target's value on the clean image.
    gap
        Completeness gap (see `Attribution`), None where undefined.
    n_windows
        Windows that reach this target; all others were not run for it.
    """

    name: str
    description: str
    score: float
    gap: float | None
    n_windows: int


class _Image:
    """Field that holds an image, or says how to get it where a result was loaded without."""

    def __get__(self, owner: Explanation | None, _: type | None = None) -> Volume:
        if owner is None:
            raise AttributeError("image")  # the field has no default
        image = owner.__dict__.get("_image")
        if image is None:
            raise ImageError(
                "this result was loaded without its image, which is not saved with it; give it: "
                "Explanation.load(folder, image=read_image(file))"
            )
        return cast("Volume", image)

    def __set__(self, owner: Explanation, image: Volume | None) -> None:
        owner.__dict__["_image"] = image


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation:
    """Result of `voxplain.explain` for one case.

    Parameters
    ----------
    image
        The image as it was read. A result that was loaded without it has None here; reading
        the attribute then raises ImageError.
    prediction
        What the model predicts, on the image's grid; None if it was not needed.
    regions
        Regions of the table, on the image's grid.
    table
        Region importances; computed on the model's grid, before any resampling.
    targets
        Every target that was asked for, in order.
    attributions
        Maps by target name, on the image's grid; only those that were kept.
    kind, unit
        Of the method's maps (see `Attribution`).
    method
        Name of the method.
    findings
        Coded remarks, e.g. a vanishing cotangent or an absent class.
    players
        Values of regions, cubes, channels or pairs of them, where the method plays a game.
    classes
        What a classifier says of each of its classes; empty for a segmentation.
    provenance
        How it was made.

    Raises
    ------
    GridError
        If image, prediction, regions and maps are not on one grid.
    TargetError
        If a map is of a target that was not asked for.
    """

    image: _Image = _Image()
    prediction: LabelMap | None
    regions: LabelMap
    table: RegionTable
    targets: tuple[TargetSummary, ...]
    kind: Kind
    unit: str
    method: str
    provenance: Provenance
    attributions: Mapping[str, Attribution] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    players: PlayerTable | None = None
    classes: tuple[ClassScore, ...] = ()

    def __post_init__(self) -> None:
        parts = {
            "image": self.image if self.has_image else None,
            "prediction": self.prediction,
            **{f"map of {name!r}": map_ for name, map_ in self.attributions.items()},
        }
        for name, part in parts.items():
            if part is not None and not part.grid.matches(self.regions.grid):
                raise GridError(
                    f"{name} and regions are on different grids: {part.grid.describe()} against "
                    f"{self.regions.grid.describe()}; resample one with voxplain.space.resample"
                )
        for name in self.attributions:
            if name not in self._target_names():
                raise TargetError(f"a map of {name!r}, which was not asked for"
                                  f"{nearest(name, self._target_names())}")  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Explanation of {self.provenance.case!r} by {self.method}: {len(self.targets)} "
            f"targets, {len(self.table.regions)} regions, {len(self.attributions)} maps kept>"
        )

    @property
    def has_image(self) -> bool:
        """Whether the image is there; a saved result can be loaded without it."""
        return self.__dict__["_image"] is not None

    def __getitem__(self, target: str) -> Attribution:
        """Map of one target.

        Raises
        ------
        TargetError
            If there is no such target, or its map was not kept.
        """
        if target in self.attributions:
            return self.attributions[target]
        if target in self._target_names():
            kept = ", ".join(self.attributions) or "none"
            raise TargetError(
                f"the map of {target!r} was not kept (kept: {kept}); its region sums are in the "
                f"table; explain again with keep=True for the map"
            )
        raise TargetError(f"no target {target!r}{nearest(target, self._target_names())}")

    def _repr_html_(self) -> str | None:
        return render(self)

    def to_frame(self) -> pd.DataFrame:
        """Region importances, one row per target, region and channel."""
        return self.table.frame

    def save(self, folder: Path | str, maps: bool = True) -> list[Path]:
        """Write everything but the image into a folder.

        Parameters
        ----------
        folder
            Made if it is missing; files of the same names are replaced. Wrap the call in
            `voxplain.space.write.atomic_folder` to leave no half-written result.
        maps
            Also write the kept attribution maps.

        Returns
        -------
        list of Path
            ``prediction.nii.gz`` if there is one; ``regions.nii.gz`` if it differs from it;
            ``attribution_<target>.nii.gz`` and ``.json``; ``regions.csv`` and ``.parquet``;
            ``players.csv`` and ``.parquet`` of a game; and ``provenance.json``, which says what
            the others mean and their SHA-256.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder = Path(folder)
        files: list[Path] = []
        prediction = _save_labels(self.prediction, folder / "prediction.nii.gz", files)
        regions = (
            prediction
            if _same(self.prediction, self.regions)
            else _save_labels(self.regions, folder / "regions.nii.gz", files)
        )
        self.table.save(folder)
        files += [folder / name for name in _TABLE]
        if self.players is not None:
            self.players.save(folder)
            files += [folder / name for name in _PLAYERS]
        attributions: dict[str, str] = {}
        if maps:
            stems = slugs(self._target_names())
            for name, attribution in self.attributions.items():
                path = attribution.save(folder / f"attribution_{stems[name]}.nii.gz")
                attributions[name] = path.name
                files += [path, folder / f"attribution_{stems[name]}.json"]
        write_json(
            folder / INDEX,
            {
                "format": _FORM,
                "version": _VERSION,
                "kind": self.kind,
                "unit": self.unit,
                "method": self.method,
                "targets": [asdict(target) for target in self.targets],
                "findings": [asdict(finding) for finding in self.findings],
                "classes": [asdict(score) for score in self.classes],
                "has_players": self.players is not None,
                "channels": list(self.image.channels) if self.has_image else None,
                "prediction": prediction,
                "regions": regions,
                "attributions": attributions,
                "provenance": self.provenance.to_dict(),
                "files": {path.name: file_sha256(path) for path in files},
            },
        )
        return [*files, folder / INDEX]

    @classmethod
    def load(cls, folder: Path | str, image: Volume | None = None) -> Explanation:
        """Read what `save` wrote.

        Parameters
        ----------
        folder
            Where it was saved.
        image
            The image that was explained, which is not saved with the result.

        Raises
        ------
        RecordError
            If a file is missing, was changed since it was saved, or holds something else.
        GridError
            If a label map or an attribution lies elsewhere than was saved.
        ImageError
            If the image is not the one that was explained.
        """
        folder = Path(folder)
        known = read_json(folder / INDEX, _FORM, _VERSION)
        try:
            _check_files(folder, known["files"])
            provenance = Provenance.from_dict(known["provenance"])
            _check_image(image, provenance)
            regions = _load_labels(known["regions"], folder)
            table = RegionTable.load(folder)
            channels = tuple(known.get("channels") or map(str, table.frame["channel"].unique()))
            return cls(
                image=None if image is None else replace(image, channels=channels),
                prediction=(
                    regions
                    if known["prediction"] == known["regions"]
                    else _load_labels(known["prediction"], folder)
                    if known["prediction"]
                    else None
                ),
                regions=regions,
                table=table,
                targets=tuple(TargetSummary(**target) for target in known["targets"]),
                kind=known["kind"],
                unit=known["unit"],
                method=known["method"],
                provenance=provenance,
                attributions={
                    name: Attribution.load(folder / file)
                    for name, file in known["attributions"].items()
                },
                findings=tuple(Finding(**finding) for finding in known["findings"]),
                players=PlayerTable.load(folder) if known.get("has_players") else None,
                classes=tuple(ClassScore(**score) for score in known.get("classes", ())),
            )
        except (KeyError, TypeError) as error:
            raise RecordError(f"{folder / INDEX} is incomplete: {error!r}") from error

    def _target_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)


def _same(one: LabelMap | None, other: LabelMap) -> bool:
    """Whether two label maps are equal in labels, names and place."""
    return one is other or (
        one is not None
        and one.grid == other.grid
        and dict(one.names) == dict(other.names)
        and np.array_equal(one.layers, other.layers)
    )


def _save_labels(labels: LabelMap | None, path: Path, files: list[Path]) -> dict[str, Any] | None:
    """Write a label map, note its file, and give what JSON must hold to read it back."""
    if labels is None:
        return None
    write_nifti(path, labels.layers, labels.grid)
    files.append(path)
    names = {str(label): labels.names[label] for label in sorted(labels.names)}
    return {"file": path.name, "names": names, "grid": grid_to_dict(labels.grid)}


def _load_labels(known: Mapping[str, Any], folder: Path) -> LabelMap:
    grid = grid_from_dict(known["grid"])
    names = {int(label): str(name) for label, name in known["names"].items()}
    return LabelMap(read_array(folder / known["file"], grid), grid, names)


def _check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuse files that are missing or not those that were saved."""
    for name, expected in hashes.items():
        if file_sha256(folder / name) != expected:
            raise RecordError(
                f"{folder / name} was changed since it was saved; explain the case again, or "
                "bring back the file"
            )


def _check_image(image: Volume | None, provenance: Provenance) -> None:
    if image is not None and image.sha256() != provenance.image_sha256:
        raise ImageError(
            f"this is not the image that was explained (case {provenance.case!r}): its hash is "
            f"{image.sha256()[:12]}…, not {provenance.image_sha256[:12]}…; give the same file, "
            "read the same way"
        )
