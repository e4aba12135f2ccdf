"""Cases while a layout is read: what breaks one is noted, and the rest is read on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxplain.data.case import Case, Split
from voxplain.data.cohort import Cohort
from voxplain.data.fault import Fault, shown
from voxplain.errors import DataError


@dataclass
class Draft:
    """Cases and faults found so far.

    Parameters
    ----------
    root
        Folder that paths are shown relative to.
    layout
        Name of the layout.
    """

    root: Path
    layout: str
    cases: list[Case] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(
        self,
        name: str,
        images: Sequence[Path],
        labels: Path | Mapping[str, Path] | None = None,
        split: Split | None = None,
        patient: str | None = None,
        metadata: Mapping[str, str | float] | None = None,
        where: str = "",
    ) -> None:
        """Add a case; one that cannot be becomes a fault, told with where it stands."""
        try:
            case = Case(name, tuple(images), labels, split, patient, metadata or {})
        except DataError as error:
            what, _, advice = str(error).rpartition("; ")
            self.fault(f"{where}{what}", advice)
        else:
            self.cases.append(case)

    def fault(
        self, what: str, advice: str, case: str | None = None, file: Path | None = None
    ) -> None:
        """Note what is wrong."""
        place = None if file is None else shown(file, self.root)
        self.faults.append(Fault(what, advice, case, place))

    def remark(
        self, what: str, advice: str, case: str | None = None, file: Path | None = None
    ) -> None:
        """Note what deserves a look."""
        place = None if file is None else shown(file, self.root)
        self.faults.append(Fault(what, advice, case, place, "remark"))

    def finish(
        self,
        channels: Sequence[str] = (),
        classes: Mapping[int, str] | None = None,
        regions: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Cohort:
        """Make the cohort; no case, and a name that several have, are faults."""
        if not self.cases:
            self.fault("no case was found", "see what the layout needs in the documentation")
        for name, n in Counter(case.name for case in self.cases).items():
            if n > 1:
                self.fault(f"{n} cases have this name", "rename or remove all but one", name)
        return Cohort(
            self.root, self.layout, tuple(self.cases), tuple(channels), dict(classes or {}),
            dict(regions or {}), tuple(self.faults),
        )  # fmt: skip


def visible(folder: Path) -> Iterator[Path]:
    """Give the entries of a folder in order of their names, hidden ones left out."""
    return iter(sorted(p for p in folder.iterdir() if not p.name.startswith(".")))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DataError
        If it is not there or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); mend it") from error


def in_order(named: Mapping[str, Any]) -> list[str]:
    """Give the names of channels ``{"0": …, "1": …}`` in the order of their numbers.

    Names need not differ there (nnU-Net takes them for kinds of normalisation): those that
    several channels have get their number, ``MRI_0``, ``MRI_1``.

    Raises
    ------
    ValueError
        If the keys are not 0, 1, 2, ….
    """
    keys = sorted(named, key=int)
    if [int(key) for key in keys] != list(range(len(keys))):
        raise ValueError(f"keys are {', '.join(named)}, expected 0, 1, 2, …")
    names = [str(named[key]) for key in keys]
    n = Counter(names)
    return [name if n[name] == 1 else f"{name}_{i}" for i, name in enumerate(names)]
