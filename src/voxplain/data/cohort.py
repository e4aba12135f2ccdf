"""Cases that belong together, whatever layout their files are in."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from voxplain.data.case import Case, is_image_column, is_label_column
from voxplain.data.fault import Fault
from voxplain.errors import DataError, OutputError
from voxplain.space import LabelMap, atomic_file

NAMES_FILE = "labels.json"
TABLES = (".csv", ".tsv", ".parquet")
IGNORE = "ignore"


@dataclass(frozen=True)
class Cohort:
    """The cases of a data folder.

    Parameters
    ----------
    root
        Folder that paths are shown relative to.
    layout
        Which layout it was read from, one of `voxplain.data.LAYOUTS`.
    cases
        In the order of their names, or of the list they were read from.
    channels
        Name of each channel; empty where the layout does not name them.
    classes
        Name of each label value, background included where it is declared; empty: unknown,
        and no value is refused. Structures of a case with masks are numbered by it.
    regions
        Classes that are unions of labels (nnU-Net's region-based training).
    faults
        What was found wrong, or worth a look, while the lists of cases were read.

    Raises
    ------
    DataError
        If two labels have one name, or two channels have.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("channels", self.channels), ("labels", self.classes.values())):
            twice = [name for name, n in Counter(names).items() if n > 1]
            if twice:
                raise DataError(
                    f"{self.root}: two {what} have one name: {', '.join(twice)}; rename one"
                )

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def ignored_label(self) -> int | None:
        """Label of voxels that count in no class: the one named ``ignore``, as in nnU-Net."""
        return next((label for label, name in self.classes.items() if name == IGNORE), None)

    def case(self, name: str) -> Case:
        """Case of a name.

        Raises
        ------
        DataError
            If there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise DataError(f"no case {name!r} among the {len(self)} of {self.layout}")

    def of(self, split: str | None) -> tuple[Case, ...]:
        """Cases of a split; None: those that are in none."""
        return tuple(case for case in self.cases if case.split == split)

    def chosen(self, split: str | None = None, n_cases: int | None = None) -> list[Case]:
        """Cases to work on.

        Parameters
        ----------
        split
            Of this split only; default: ``test`` where there is one, else all.
        n_cases
            At most so many, the first ones.

        Raises
        ------
        DataError
            If there are none.
        """
        splits = {str(case.split) for case in self.cases}
        wanted = split or ("test" if "test" in splits else None)
        cases = [case for case in self.cases if wanted in (None, str(case.split))]
        if not cases:
            raise DataError(
                f"{self.root}: no case of the split {wanted!r}; splits: {', '.join(sorted(splits))}"
            )
        return cases[:n_cases]

    def read_labels(self, case: Case) -> LabelMap:
        """Read the labels of a case under the cohort's names; as `Case.read_labels`."""
        return case.read_labels(self.classes or None)

    def to_frame(self) -> pd.DataFrame:
        """Tabulate the cases, one a row.

        Returns
        -------
        DataFrame
            Columns ``case``; ``image`` (or ``image_CHANNEL`` for each of several files);
            ``label`` (or ``label_STRUCTURE`` for each mask), ``patient`` and ``split`` where
            any case has one; metadata. What a case does not have is missing.

        Raises
        ------
        DataError
            If the cases have different numbers of image files.
        """
        columns = self._image_columns()
        rows = [_row(case, columns) for case in self.cases]
        found = list(dict.fromkeys(key for row in rows for key in row))
        first = ["case", *columns, *sorted(c for c in found if is_label_column(c))]
        first += [c for c in ("patient", "split") if c in found]
        return pd.DataFrame(rows, columns=[*first, *[c for c in found if c not in first]])

    def _image_columns(self) -> list[str]:
        counts = {len(case.images) for case in self.cases}
        if len(counts) > 1:
            raise DataError(
                f"a table has one column a channel, and cases have from {min(counts)} to "
                f"{max(counts)} image files; mend the faults of voxplain data check first"
            )
        n = counts.pop() if counts else 1
        if n == 1 and len(self.channels) != 1:
            return ["image"]
        names = self.channels if len(self.channels) == n else [str(i) for i in range(n)]
        return [f"image_{name}" for name in names]

    def write_manifest(self, path: Path | str) -> Path:
        """Write the cases as a manifest, which `read_data` reads back.

        Parameters
        ----------
        path
            ``.csv``, ``.tsv`` or ``.parquet``. Files below its folder are written relative to
            it, others with their whole path. The classes, if known, go to ``labels.json``
            beside it.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        DataError
            If the cases have different numbers of image files.
        OutputError
            If the suffix is another one, ``labels.json`` is there and says something else, or
            the disk refuses.

        Notes
        -----
        A manifest has no place for `regions`, nor for the names of channels that lie in one file.
        It holds the column ``patient`` and all metadata: treat it as confidential as the data.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in TABLES:
            raise OutputError(f"{path}: a manifest ends in {', '.join(TABLES)}")
        frame = self.to_frame()
        for column in map(str, frame.columns):
            if is_image_column(column) or is_label_column(column):
                frame[column] = frame[column].map(partial(_written, folder=path.parent))
        if self.classes:
            self._write_names(path.with_name(NAMES_FILE))
        with atomic_file(path) as temporary:
            if suffix == ".parquet":
                frame.to_parquet(temporary, index=False)
            else:
                frame.to_csv(temporary, index=False, sep="\t" if suffix == ".tsv" else ",")
        return path

    def _write_names(self, path: Path) -> None:
        text = json.dumps({str(k): v for k, v in sorted(self.classes.items())}, indent=1) + "\n"
        if path.exists() and json.loads(path.read_text("utf-8")) != json.loads(text):
            raise OutputError(
                f"{path} is there and names other labels; write the manifest into another folder"
            )
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _row(case: Case, columns: list[str]) -> dict[str, str | float | Path]:
    row: dict[str, str | float | Path] = {"case": case.name}
    row.update(zip(columns, map(str, case.images), strict=True))
    if isinstance(case.labels, Mapping):
        row.update({f"label_{name}": str(file) for name, file in case.labels.items()})
    elif case.labels is not None:
        row["label"] = str(case.labels)
    if case.patient is not None:
        row["patient"] = case.patient
    if case.split is not None:
        row["split"] = case.split
    return {**row, **case.metadata}


def _written(value: object, folder: Path) -> object:
    """Path as it stands in a manifest of a folder."""
    if not isinstance(value, str):
        return value
    file, top = Path(os.path.abspath(value)), Path(os.path.abspath(folder))  # noqa: PTH100
    return file.relative_to(top).as_posix() if file.is_relative_to(top) else file.as_posix()
