"""Wide tables in Agg²Exp's style, a row for each case: into a study, and out of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.data.metadata import metadata_of
from voxplain.errors import DataError, LabelError, OutputError
from voxplain.records.archive import file_sha256
from voxplain.records.cohort_table import CohortTable
from voxplain.records.provenance import package_versions
from voxplain.records.region_table import COLUMNS as REGION_COLUMNS
from voxplain.records.unfinished import PLAN_FILE, read_plan
from voxplain.space.labelmap import nearest
from voxplain.space.write import atomic_folder
from voxplain.study.store import CLASS_COLUMNS, DONE, RUN_COLUMNS, Store, write_block
from voxplain.study.wide_check import Names, ShareSums, check_values
from voxplain.study.wide_columns import JOINT, OWN_ENDINGS, WideColumns, wide_columns
from voxplain.study.wide_file import WideFile

Floats = NDArray[np.float64]


def import_wide(
    file: Path,
    folder: Path,
    *,
    case_column: str | None = None,
    model: str = "imported",
    method: str = "imported",
    extra: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Store:
    """Make a study of a wide table.

    Columns ``<a>_explanation_in_<b>_mass`` are shares of region b in the map of target a,
    ``…_mean`` means of |a| per voxel, ``<a>_dice`` and ``<a>_iou`` agreement with the truth;
    what is none of these and names no case is metadata. An empty cell is NaN: an absent class.

    Parameters
    ----------
    file
        CSV, TSV or Parquet with a row for each case.
    folder
        Of the store; new.
    case_column
        Column that names the cases, if it is not clear (``case``, ``id``, ``image_id``,
        ``StudyInstanceUID``, ``patient``, ``patient_id``, or a first one without a name). With a
        column ``patient`` beside it, names that come again get ``_2``, ``_3`` … after them.
    model, method
        Labels.
    extra
        Regions that overlap others. None: those which are neither a target nor the background, if
        the shares of a target sum up closer to 1 without them (sum of |Σ shares − 1| over all
        cases and targets).
    progress
        Called with the number of rows read.

    Returns
    -------
    Store
        Its ``plan["remarks"]`` are sentences to show: what was left out, decided, or is not as
        it should be.

    Raises
    ------
    DataError
        If the table cannot be read or understood, two rows name one case, or a value cannot be
        (a share below 0); every message has the column and the row.
    OutputError
        If the folder holds another study, or cannot be written. Nothing is left then.

    Notes
    -----
    Agg²Exp's columns of one sign (``…_mass_pos``, also ``…_pos_mass``) are shares of that sign's
    total, not sums in the unit of the map as ``positive`` and ``negative`` are elsewhere.
    Memory: a stretch of some thousand rows. Of 100,000 cases × 17 × 17 shares and means it takes
    about half a minute.
    """
    source = WideFile(Path(file))
    columns = wide_columns(source.path, source.names, case_column)
    for region in extra or ():
        if region not in columns.regions:
            raise DataError(f"no region {region!r}{nearest(region, columns.regions)}")
    origin = {
        "file": source.path.name, "sha256": file_sha256(source.path), "columns": source.names,
        "case_column": columns.case, "asked_extra": None if extra is None else list(extra),
    }  # fmt: skip
    labels: dict[str, dict[str, Any]] = {"models": {model: {}}, "methods": {method: {}}}
    _check_place(Path(folder), {"source": origin, **labels})
    names = Names(source.path, is_numbered=case_column is not None and _has_patients(columns))
    sums = ShareSums(columns, extra)
    writer = _Writer(columns, model, method)
    texts = list(dict.fromkeys([columns.case, columns.patient, *columns.metadata]))
    listed: list[pd.DataFrame] = []
    n_read = 0
    with atomic_folder(folder) as temporary:
        for numbers, cells in source.stretches(columns.numbers, texts):
            first_row = source.first_row + n_read
            check_values(source.path, columns, numbers, columns.numbers, first_row)
            cases = names.take(cells[columns.case].tolist(), first_row)
            sums.take(writer.add(temporary, cases, numbers))
            listed.append(cells.assign(**{_CASE: cases}))
            n_read += len(cases)
            if progress is not None:
                progress(n_read)
        if not n_read:
            raise DataError(f"{source.path}: a table without rows; one for each case is needed")
        plan = {
            **labels,
            "targets": list(columns.targets),
            "regions": list(columns.regions),
            "extra_regions": list(sums.extra),
            "values": sorted({v for v, _, _ in columns.values} - columns.signed),
            "source": origin,
            "remarks": [*_remarks(columns, names), *sums.remarks()],
        }
        Store.create(temporary, plan, _cases(pd.concat(listed, ignore_index=True), columns))
    return Store(folder)


def export_wide(table: CohortTable) -> pd.DataFrame:
    """Return a cohort as a wide table in Agg²Exp's style, which `import_wide` reads.

    Parameters
    ----------
    table
        With the shares; means and signed sums are told if they were loaded, ``n_voxels`` is not.

    Returns
    -------
    DataFrame
        A row for each case: ``case``, ``patient``, metadata, ``<a>_explanation_in_<b>_mass``
        (``_mean``, ``_positive``, ``_negative``), ``<a>_dice``. It names the patients.

    Raises
    ------
    LabelError
        If the table could not be read back: a name of a class or of metadata is in the way.
    """
    kept = [value for value in OWN_ENDINGS if value in table.values]
    told = {
        f"{target}{JOINT}{region}{OWN_ENDINGS[value]}": (value, t, r)
        for t, target in enumerate(table.targets)
        for r, region in enumerate(table.regions)
        for value in kept
    }
    numbers = np.empty((len(table), len(told)))
    for i, (value, t, r) in enumerate(told.values()):
        numbers[:, i] = table.values[value][:, t, r]
    first = table.cases[["patient"]].reset_index(names="case")
    own = table.metadata.reset_index(drop=True)
    dice = table.dice.add_suffix("_dice").reset_index(drop=True)
    wide = pd.concat([first, own, pd.DataFrame(numbers, columns=[*told]), dice], axis=1)
    names = [str(name) for name in wide.columns]
    try:
        found = wide_columns(Path("table"), names, None)
    except DataError as error:
        raise LabelError(f"the cohort cannot be told as a wide table: {error}") from error
    free = {*own.columns, *dice.columns}
    wrong = sorted({*map(str, own.columns)} - {*found.metadata})
    if set(found.values.values()) != {*told} or {*found.metadata} - free or wrong:
        raise LabelError(
            "the cohort cannot be told as a wide table, for it would be read as another: rename "
            f"{', '.join(wrong) or f'classes that end like {tuple(OWN_ENDINGS.values())}'}"
        )
    return wide


_CASE = " case"  # no column is called so: names have no spaces around them


class _Writer:
    """Writes stretches of a wide table as blocks of a store."""

    def __init__(self, columns: WideColumns, model: str, method: str) -> None:
        self._columns = columns
        self._labels = {"model": model, "method": method}
        self._created = datetime.now(UTC).isoformat(timespec="microseconds")
        place = {name: i for i, name in enumerate(columns.numbers)}
        self._place = {
            value: np.array([
                place.get(columns.values.get((value, *pair), ""), -1) for pair in columns.pairs
            ])
            for value in OWN_ENDINGS
        }  # fmt: skip
        self._is_flipped = np.array([
            columns.values.get(("negative", *pair)) in columns.signed for pair in columns.pairs
        ])  # fmt: skip
        self._agreement = {
            what: [place.get(columns.agreement.get((what, name), ""), -1)
                   for name in columns.classes]
            for what in ("dice", "iou")
        }  # fmt: skip

    def add(self, folder: Path, cases: Sequence[str], numbers: Floats) -> Floats:
        """Write a block; return the shares, (n_cases, n_pairs)."""
        padded = np.column_stack([numbers, np.full(len(numbers), np.nan)])  # place -1: no column
        values = {value: padded[:, place] for value, place in self._place.items()}
        values["negative"][:, self._is_flipped] *= -1
        regions = self._rows(cases, self._columns.pairs, ("target", "region"))
        regions |= {value: array.ravel() for value, array in values.items()}
        regions |= {"channel": _one("", len(regions["case"])), "n_voxels": 0}
        classes = self._rows(cases, [(name,) for name in self._columns.classes], ("class",))
        classes |= {what: padded[:, place].ravel() for what, place in self._agreement.items()}
        plain = pd.DataFrame(classes).astype(
            dict.fromkeys(("case", "model", "method", "class"), str)
        )
        write_block(
            folder,
            pd.DataFrame(regions)[[*REGION_COLUMNS]],
            plain.reindex(columns=[*CLASS_COLUMNS]),
            self._runs(cases),
        )
        return values["share"]

    def _rows(
        self, cases: Sequence[str], keys: Sequence[tuple[str, ...]], names: Sequence[str]
    ) -> dict[str, Any]:
        """Columns that tell the rows of each case: cases × keys."""
        n = len(cases) * len(keys)
        rows: dict[str, Any] = {
            "case": _named(np.repeat(np.arange(len(cases)), len(keys)), cases),
            **{name: _one(label, n) for name, label in self._labels.items()},
        }
        for i, name in enumerate(names):
            codes, found = pd.factorize(np.array([key[i] for key in keys], object))
            rows[name] = _named(np.tile(codes, len(cases)), found.tolist())
        return rows

    def _runs(self, cases: Sequence[str]) -> pd.DataFrame:
        empty = dict.fromkeys(RUN_COLUMNS, "") | {
            "n_forward": 0, "n_backward": 0, "seconds": 0.0, "peak_memory_bytes": 0,
        }  # fmt: skip
        told = {"status": DONE, "created": self._created, **self._labels}
        told["version"] = package_versions().get("voxplain", "")
        return pd.DataFrame({**empty, **told, "case": cases})[[*RUN_COLUMNS]]


def _one(text: str, n: int) -> pd.Series:
    """Return one text n times."""
    return _named(np.zeros(n, np.int8), [text])


def _named(codes: NDArray[np.signedinteger[Any]], names: Sequence[str]) -> pd.Series:
    """Return names by their positions; each is held once."""
    found: Any = pd.Categorical.from_codes(codes, pd.Index(names))
    return pd.Series(found)


def _has_patients(columns: WideColumns) -> bool:
    return columns.case != columns.patient


def _cases(cells: pd.DataFrame, columns: WideColumns) -> pd.DataFrame:
    """Table of cases as a store keeps it: index ``case``, ``patient``, metadata."""
    patients = cells[columns.patient].where(cells[columns.patient] != "", cells[_CASE])
    found = {"patient": patients.to_numpy()}
    for name in columns.metadata:
        rows = metadata_of({name: text} for text in cells[name])
        key = next((key for row in rows for key in row), name)
        found[key] = pd.Series([row.get(key) for row in rows]).to_numpy()
    return pd.DataFrame(found, index=pd.Index(cells[_CASE].tolist(), name="case"))


def _remarks(columns: WideColumns, names: Names) -> list[str]:
    found = []
    reasons = dict.fromkeys(columns.left_out.values())
    for reason in reasons:
        own = [name for name, why in columns.left_out.items() if why == reason]
        shown = ", ".join(repr(name) for name in own[:3]) + (" …" if len(own) > 3 else "")
        found.append(f"left out ({reason}): {shown}")
    if columns.signed:
        found.append(
            f"{len(columns.signed)} columns are shares of the positive or of the negative part "
            "alone; they are kept as such (the negative ones with a minus), not in the map's unit"
        )
    if names.n_renamed:
        found.append(f"{names.n_renamed} cases got a number after a name that was taken")
    return found


def _check_place(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder with another study; the same again is no harm, its latest blocks count."""
    if (folder / PLAN_FILE).is_file():
        plan = read_plan(folder)
        if any(plan.get(key) != value for key, value in wanted.items()):
            raise OutputError(f"{folder} holds another study; give another folder (--out)")
