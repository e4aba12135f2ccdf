"""A map of what each voxel did for a target, with its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError, RecordError
from voxplain.records.archive import (
    grid_from_dict,
    grid_to_dict,
    read_array,
    read_json,
    write_json,
)
from voxplain.records.display import render
from voxplain.records.provenance import Provenance
from voxplain.space.grid import Grid
from voxplain.space.nifti import write_nifti

Kind = Literal["contribution", "sensitivity", "localisation"]

_FORM, _VERSION = "voxplain attribution", 1
_TYPES = (np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Attribution:
    """One attribution map; scale and sign are as the method defines them.

    Parameters
    ----------
    values
        (n_channels, *grid.shape) floats.
    grid
        Where the voxels lie.
    channels
        Names of the image channels.
    kind
        ``contribution``: unit of the target; voxels sum to a share of the target's score.
        ``sensitivity``: unit of the target per unit of (preprocessed) intensity.
        ``localisation``: where the evidence lies, on a scale of the method's own; it neither sums
        to the score nor is a slope.
    unit
        e.g. ``logit`` or ``logit per intensity``.
    target
        Name of the target.
    score
        The target's value on the clean image.
    gap
        Completeness gap of a contribution: sum of the values minus (score at the image minus
        score at the baseline), on the grid where it was computed; None where undefined.
    provenance
        How it was made.

    Raises
    ------
    GridError
        If the values have another shape than channels and grid.
    """

    values: NDArray[np.floating[Any]]
    grid: Grid
    channels: tuple[str, ...]
    kind: Kind
    unit: str
    target: str
    score: float
    gap: float | None
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.channels), *self.grid.shape):
            raise GridError(
                f"attribution values must be ({len(self.channels)}, *{self.grid.shape}), "
                f"got {self.values.shape}"
            )

    def _repr_html_(self) -> str | None:
        return render(self)

    def total(self) -> float:
        """Sum over every voxel and channel, in the unit of the map, added in float64."""
        return float(self.values.sum(dtype=np.float64))

    def flat(self) -> NDArray[np.floating[Any]]:
        """Sum over channels; (*grid.shape) in the type of the values."""
        return np.asarray(self.values.sum(axis=0))

    def save(self, path: Path | str) -> Path:
        """Write ``<stem>.nii.gz`` with the values and ``<stem>.json`` with everything else.

        Parameters
        ----------
        path
            File to write, with or without ``.nii.gz``.

        Returns
        -------
        Path
            The NIfTI file. The values keep their type, float32 or float64 (others become
            float32); the JSON file holds the affine in float64.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        image, sidecar = _files(path)
        dtype = self.values.dtype if self.values.dtype in _TYPES else np.dtype(np.float32)
        write_nifti(image, self.values, self.grid, dtype)
        write_json(
            sidecar,
            {
                "format": _FORM,
                "version": _VERSION,
                "target": self.target,
                "score": float(self.score),
                "gap": None if self.gap is None else float(self.gap),
                "kind": self.kind,
                "unit": self.unit,
                "channels": list(self.channels),
                "grid": grid_to_dict(self.grid),
                "provenance": self.provenance.to_dict(),
            },
        )
        return image

    @classmethod
    def load(cls, path: Path | str) -> Attribution:
        """Read what `save` wrote, equal to the last bit.

        Parameters
        ----------
        path
            The NIfTI file, with or without ``.nii.gz``; its JSON file lies beside it.

        Raises
        ------
        RecordError
            If the JSON file is missing, damaged or holds something else.
        ImageError
            If the NIfTI file cannot be read.
        GridError
            If the two files disagree on the grid.
        """
        image, sidecar = _files(path)
        known = read_json(sidecar, _FORM, _VERSION)
        try:
            grid = grid_from_dict(known["grid"])
            return cls(
                values=read_array(image, grid),
                grid=grid,
                channels=tuple(known["channels"]),
                kind=known["kind"],
                unit=known["unit"],
                target=known["target"],
                score=known["score"],
                gap=known["gap"],
                provenance=Provenance.from_dict(known["provenance"]),
            )
        except (KeyError, TypeError) as error:
            raise RecordError(f"{sidecar} is incomplete: {error!r}") from error


def _files(path: Path | str) -> tuple[Path, Path]:
    """NIfTI file and JSON file of one stem."""
    path = Path(path)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return path.with_name(f"{stem}.nii.gz"), path.with_name(f"{stem}.json")
