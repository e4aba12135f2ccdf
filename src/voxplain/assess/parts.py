"""Finished parts of a long assessment: written one by one, taken up again after a stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import RecordError
from voxplain.records.archive import read_json, write_json
from voxplain.records.finding import Finding
from voxplain.records.provenance import Cost
from voxplain.records.unfinished import PLAN_FILE, plan_digest, remove_parts
from voxplain.space.write import atomic_file

_PART, _VERSION = "voxplain assessment part", 1

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """What one step of the work found.

    Parameters
    ----------
    scores, stages, pictures
        Rows of the tables of `voxplain.records.assessment`.
    findings
        Coded remarks.
    cost
        Passes and seconds.
    facts
        Plain values beside, e.g. the image's hash.
    arrays
        Planes of pictures by their file's name, and maps that later steps need.
    """

    scores: list[Row] = field(default_factory=list)
    stages: list[Row] = field(default_factory=list)
    pictures: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    facts: Row = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Parts:
    """A folder of parts that belong to one plan.

    Parameters
    ----------
    folder
        Made if it is missing.
    plan
        Everything that decides the result, as plain values.
    stamps
        By the name of a case: what tells its files from changed ones. Parts of a case that has
        changed since are not found: they are made again.

    Raises
    ------
    OutputError
        If the folder holds parts of another plan.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], stamps: Mapping[str, str]) -> None:
        self._folder, self._stamps = folder, stamps
        self._digest = plan_digest(folder, plan, "parts")

    def has(self, key: Sequence[str]) -> bool:
        """Whether a part is finished."""
        return self._path(key).is_file()

    def read(self, key: Sequence[str]) -> Part:
        """Return a finished part without its arrays.

        Raises
        ------
        RecordError
            If it is not there, or damaged.
        """
        path = self._path(key)
        known = read_json(path, _PART, _VERSION)
        try:
            if known["key"] != [self._digest, *key]:
                raise RecordError(f"{path} holds another part; run with --restart")
            return Part(
                known["scores"], known["stages"], known["pictures"],
                [Finding(**one) for one in known["findings"]], Cost(**known["cost"]),
                known["facts"],
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is incomplete: {error!r}; run with --restart") from error

    def arrays(self, key: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a finished part."""
        path = self._path(key).with_suffix(".npz")
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def write(self, key: Sequence[str], part: Part) -> None:
        """Keep a part: arrays first, so that a part that can be read is whole."""
        path = self._path(key)
        if part.arrays:
            with (
                atomic_file(path.with_suffix(".npz")) as temporary,
                temporary.open("wb") as stream,
            ):
                np.savez(stream, allow_pickle=False, **dict(part.arrays))
        write_json(
            path,
            {
                "format": _PART,
                "version": _VERSION,
                "key": [self._digest, *key],
                "scores": [_plain(row) for row in part.scores],
                "stages": [_plain(row) for row in part.stages],
                "pictures": [_plain(row) for row in part.pictures],
                "findings": [asdict(one) for one in part.findings],
                "cost": asdict(part.cost),
                "facts": part.facts,
            },
        )

    def drop_empty(self) -> None:
        """Remove the folder if no part is finished: other settings may be tried in its place."""
        if all(file.name == PLAN_FILE for file in self._folder.glob("*.json")):
            remove_parts(self._folder)

    def _path(self, key: Sequence[str]) -> Path:
        cases = [name for name in key if name in self._stamps] or sorted(self._stamps)
        told = [*key, *(self._stamps[name] for name in cases)]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:20]
        return self._folder / f"{digest}.json"


def _plain(row: Mapping[str, Any]) -> Row:
    """Row with Python's own numbers, NaN as None, which JSON can hold."""
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in plain.items()}
