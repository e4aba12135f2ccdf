"""What `voxplain instances` tells of a case: tables of its lesions, their maps, their place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.errors import LabelError, RecordError
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
from voxplain.records.attribution import Attribution
from voxplain.records.finding import Finding
from voxplain.records.provenance import Provenance
from voxplain.space.labelmap import LabelMap
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_file

INSTANCES = (
    "case", "patient", "model", "instance", "type", "class", "n_voxels", "volume_mm3",
    "x_mm", "y_mm", "z_mm", "probability_mean", "probability_max", "logit_mean", "overlap",
    "partners", "touches_border", "n_windows",
)  # fmt: skip
"""One row a lesion. Position: centroid in RAS mm (2D: mm along rows' and columns' axes of the
grid, z 0; volume_mm3 is then an area). partners: names joined by ``;``."""

SALIENCY = (
    "case", "model", "instance", "method", "channel", "unit", "peak_positive", "peak_negative",
    "mean_inside", "share", "share_error", "peak_distance_mm",
)  # fmt: skip
"""One row a lesion, method and channel of its map; see `voxplain.lesions.features`."""

SHELLS = (
    "case", "model", "instance", "method", "channel", "from_mm", "to_mm", "n_voxels", "mean",
    "mean_positive", "mean_negative",
)  # fmt: skip
"""One row a lesion, method, channel and shell; a shell is from < distance ≤ to, in mm."""

CONTEXT = (
    "case", "patient", "model", "instance", "type", "mode", "fill", "distance_mm", "n_steps",
    "probability_mean", "probability_max", "n_detected_voxels", "is_detected", "n_voxels",
)  # fmt: skip
"""One row a lesion and amount of surroundings. mode: ``keep`` or ``remove``. distance_mm is inf
for the whole image; n_steps: voxel steps where they were asked for, else missing."""

RESPONSE = (
    "case", "patient", "model", "place", "x_mm", "y_mm", "z_mm", "diameter_mm", "contrast",
    "n_voxels", "probability_mean", "probability_max", "is_detected",
)  # fmt: skip
"""One row an inserted lesion. contrast: factor of the intensity model's contrast."""

_FORM, _VERSION = "voxplain lesions", 1
_LABELS = "instances.nii.gz"
_NAMES = ("instances", "saliency", "shells")


@dataclass(frozen=True, eq=False, kw_only=True)
class LesionResult:
    """Lesions of one case with their saliency.

    Parameters
    ----------
    instances, saliency, shells
        Tables with the columns `INSTANCES`, `SALIENCY`, `SHELLS`.
    lesions
        Label i of row i - 1 of `instances`, on the model's grid.
    maps
        By instance and method: the map around the lesion, on a crop of the model's grid.
    provenance
        How it was made.
    findings
        Coded remarks.
    image
        As it was read; not saved with the result.

    Raises
    ------
    LabelError
        If a table lacks a column.
    """

    instances: pd.DataFrame
    saliency: pd.DataFrame
    shells: pd.DataFrame
    lesions: LabelMap
    provenance: Provenance
    maps: Mapping[tuple[str, str], Attribution] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    image: Volume | None = None

    def __post_init__(self) -> None:
        check_columns(self.instances, INSTANCES, "instances")
        check_columns(self.saliency, SALIENCY, "saliency")
        check_columns(self.shells, SHELLS, "shells")

    def save(self, folder: Path | str) -> list[Path]:
        """Write ``instances``, ``saliency``, ``shells`` (.csv, .parquet), labels and maps.

        Parameters
        ----------
        folder
            Existing. Maps go to ``maps/INSTANCE_METHOD.nii.gz`` and ``.json`` beside each; what
            lies in ``full`` there is listed too.

        Returns
        -------
        list of Path
            What was written; ``provenance.json`` last, with their SHA-256.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder = Path(folder)
        files = [file for name in _NAMES for file in save_table(getattr(self, name), folder, name)]
        write_nifti(folder / _LABELS, self.lesions.layers, self.lesions.grid)
        files.append(folder / _LABELS)
        maps = []
        for (instance, method), attribution in self.maps.items():
            (folder / "maps").mkdir(exist_ok=True)
            path = attribution.save(folder / "maps" / map_stem(instance, method))
            maps.append({"instance": instance, "method": method, "file": f"maps/{path.name}"})
            files += [path, path.with_name(f"{map_stem(instance, method)}.json")]
        files += sorted(file for file in folder.glob("full/*") if file.is_file())
        write_json(
            folder / INDEX,
            {
                "format": _FORM,
                "version": _VERSION,
                "labels": {
                    "file": _LABELS,
                    "names": {str(k): v for k, v in sorted(self.lesions.names.items())},
                    "grid": grid_to_dict(self.lesions.grid),
                },
                "channels": None if self.image is None else list(self.image.channels),
                "maps": maps,
                "findings": [vars(finding) for finding in self.findings],
                "provenance": self.provenance.to_dict(),
                "files": {str(p.relative_to(folder).as_posix()): file_sha256(p) for p in files},
            },
        )
        return [*files, folder / INDEX]

    @classmethod
    def load(cls, folder: Path | str, image: Volume | None = None) -> LesionResult:
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
            If a file is missing, was changed since it was saved, or holds something else, or
            the image is not the one that was explained.
        """
        folder = Path(folder)
        known = read_json(folder / INDEX, _FORM, _VERSION)
        try:
            for name, expected in known["files"].items():
                if file_sha256(folder / name) != expected:
                    raise RecordError(
                        f"{folder / name} was changed since it was saved; run it again, or bring "
                        "back the file"
                    )
            provenance = Provenance.from_dict(known["provenance"])
            if image is not None and image.sha256() != provenance.image_sha256:
                raise RecordError(
                    f"this is not the image that was explained (case {provenance.case!r}): its "
                    f"hash is {image.sha256()[:12]}…, not {provenance.image_sha256[:12]}…"
                )
            if image is not None and known["channels"]:
                image = replace(image, channels=tuple(known["channels"]))
            labels: Mapping[str, Any] = known["labels"]
            grid = grid_from_dict(labels["grid"])
            names = {int(label): str(name) for label, name in labels["names"].items()}
            tables = {name: load_table(folder, name) for name in _NAMES}
            return cls(
                instances=tables["instances"],
                saliency=tables["saliency"],
                shells=tables["shells"],
                lesions=LabelMap(read_array(folder / labels["file"], grid), grid, names),
                maps={
                    (one["instance"], one["method"]): Attribution.load(folder / one["file"])
                    for one in known["maps"]
                },
                findings=tuple(Finding(**finding) for finding in known["findings"]),
                provenance=provenance,
                image=image,
            )
        except (KeyError, TypeError) as error:
            raise RecordError(f"{folder / INDEX} is incomplete: {error!r}") from error


def map_stem(instance: str, method: str) -> str:
    """File name of a map, without suffix; a name that is no file name gets a hash of itself."""
    name = f"{instance}_{method}"
    slug = slugs([name])[name]
    return slug if slug == name else f"{slug}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def check_columns(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    LabelError
        If one is missing; the message names it.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise LabelError(
            f"the table {name} has the columns {', '.join(columns)}; missing: {', '.join(missing)}"
        )


def save_table(frame: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.csv`` and ``NAME.parquet``; return both.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    files = [folder / f"{name}.csv", folder / f"{name}.parquet"]
    with atomic_file(files[0]) as temporary:
        frame.to_csv(temporary, index=False)
    with atomic_file(files[1]) as temporary:
        frame.to_parquet(temporary, index=False)
    return files


def load_table(folder: Path, name: str) -> pd.DataFrame:
    """Read what `save_table` wrote.

    Raises
    ------
    RecordError
        If the file is missing or is not a Parquet file.
    """
    path = folder / f"{name}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise RecordError(f"{path} is not a saved table: {error}") from error
