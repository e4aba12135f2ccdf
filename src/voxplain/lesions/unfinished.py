"""Finished lesions of a run that goes on: written one by one, taken up again after a stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxplain.errors import OutputError, RecordError
from voxplain.lesions.features import Row
from voxplain.records.archive import read_json, slugs, write_json
from voxplain.records.attribution import Attribution
from voxplain.records.finding import Finding

_PLAN, _PART, _VERSION = "voxplain lesion plan", "voxplain lesion part", 1
_PLAN_FILE = "plan.json"


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
    """

    saliency: list[Row]
    shells: list[Row]
    findings: list[Finding]
    map: Attribution | None


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
        if folder is None:
            return
        wanted = json.loads(json.dumps(plan))
        path = folder / _PLAN_FILE
        if path.is_file():
            found = read_json(path, _PLAN, _VERSION)["plan"]
            other = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
            if other:
                raise OutputError(
                    f"{folder} holds lesions of an unfinished run with another "
                    f"{', '.join(other)}; give the same settings to go on, another --out, or "
                    "--restart to throw them away"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": _PLAN, "version": _VERSION, "plan": wanted})

    def _stem(self, instance: str, method: str) -> str:
        return slugs([f"{instance}_{method}"])[f"{instance}_{method}"]

    def read(self, instance: str, method: str) -> Part | None:
        """Return a finished part; None if there is none."""
        if self._folder is None:
            return None
        stem = self._stem(instance, method)
        path = self._folder / f"{stem}.part.json"
        if not path.is_file():
            return None
        known = read_json(path, _PART, _VERSION)
        try:
            held = Attribution.load(self._folder / stem) if known["has_map"] else None
            remarks = [Finding(**one) for one in known["findings"]]
            return Part(known["saliency"], known["shells"], remarks, held)
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is incomplete: {error!r}; run with --restart") from error

    def write(self, instance: str, method: str, part: Part) -> None:
        """Keep a part; the map first, so that a part that can be read is whole."""
        if self._folder is None:
            return
        stem = self._stem(instance, method)
        if part.map is not None:
            part.map.save(self._folder / stem)
        write_json(
            self._folder / f"{stem}.part.json",
            {
                "format": _PART,
                "version": _VERSION,
                "saliency": part.saliency,
                "shells": part.shells,
                "findings": [asdict(one) for one in part.findings],
                "has_map": part.map is not None,
            },
        )


def remove_parts(folder: Path) -> None:
    """Delete the parts of a run that has ended, or is thrown away; nothing else."""
    if (folder / _PLAN_FILE).is_file():
        shutil.rmtree(folder)
