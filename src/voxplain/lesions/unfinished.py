"""Finished lesions of a run that goes on: written one by one, taken up again after a stop."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from voxplain.errors import RecordError
from voxplain.lesions.features import Row
from voxplain.records.archive import read_json, write_json
from voxplain.records.attribution import Attribution
from voxplain.records.finding import Finding
from voxplain.records.lesion_tables import map_stem
from voxplain.records.unfinished import plan_digest

_PART, _VERSION = "voxplain lesion part", 1
FULL = "full"
"""Folder of whole maps on the image's grid."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one method says of one lesion.

    Parameters
    ----------
    saliency, shells
        Rows of `map_features` and `shell_features`.
    findings
        Coded remarks.
    map
        The map around the lesion, where it is kept.
    full
        The whole map on the image's grid, where it was asked for; it goes to the disk and is
        not held.
    """

    saliency: list[Row]
    shells: list[Row]
    findings: list[Finding]
    map: Attribution | None
    full: Attribution | None = None


class Unfinished:
    """A folder of parts that belong to one plan.

    Parameters
    ----------
    folder
        Made if it is missing. None: nothing is kept on disk.
    plan
        Everything that decides the result, as plain values.

    Raises
    ------
    OutputError
        If the folder holds parts of another plan.
    """

    def __init__(self, folder: Path | None, plan: Mapping[str, Any]) -> None:
        self._folder = folder
        self._digest = plan_digest(folder, plan, "lesions")

    def read(self, instance: str, method: str) -> Part | None:
        """Return a finished part of this plan; None if there is none."""
        if self._folder is None:
            return None
        stem = map_stem(instance, method)
        path = self._folder / f"{stem}.part.json"
        if not path.is_file():
            return None
        known = read_json(path, _PART, _VERSION)
        try:
            if known["part"] != [self._digest, instance, method]:
                return None  # left by another run, whose plan is gone
            held = Attribution.load(self._folder / stem) if known["has_map"] else None
            remarks = [Finding(**one) for one in known["findings"]]
            return Part(known["saliency"], known["shells"], remarks, held)
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is incomplete: {error!r}; run with --restart") from error

    def write(self, instance: str, method: str, part: Part) -> Part:
        """Keep a part, maps first, so that a part that can be read is whole.

        Returns
        -------
        Part
            What is to be held in memory: without the full map.
        """
        if self._folder is None:
            return part
        stem = map_stem(instance, method)
        if part.map is not None:
            part.map.save(self._folder / stem)
        if part.full is not None:
            part.full.save(self._folder / FULL / stem)
        write_json(
            self._folder / f"{stem}.part.json",
            {
                "format": _PART,
                "version": _VERSION,
                "part": [self._digest, instance, method],
                "saliency": part.saliency,
                "shells": part.shells,
                "findings": [asdict(one) for one in part.findings],
                "has_map": part.map is not None,
            },
        )
        return replace(part, full=None)


def take_full_maps(unfinished: Path, folder: Path) -> None:
    """Copy the full maps of a run that has ended into a folder of results, if there are some."""
    if (unfinished / FULL).is_dir():
        shutil.copytree(unfinished / FULL, folder / FULL)
