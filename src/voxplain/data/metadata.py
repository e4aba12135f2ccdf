"""Tables that come with data: text in, numbers where a whole column is numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from voxplain.data.case import Split, is_taken
from voxplain.errors import DataError

ABSENT = ("", "n/a", "nan", "<na>", "none")
_CODE = re.compile(r"[+-]?0\d")  # 007 is a code, not a number
_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_table(path: Path, separator: str = ",") -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file as text, for `metadata_of` to interpret.

    Parameters
    ----------
    path
        The suffix says which; ``.tsv`` is separated by tabs.
    separator
        Between the columns of a ``.csv``.

    Returns
    -------
    DataFrame
        Text; what is absent is an empty text. Names of columns are stripped.

    Raises
    ------
    DataError
        If it cannot be read, has no rows or two columns of one name.
    """
    try:
        if path.suffix.lower() == ".parquet":
            raw = pd.read_parquet(path)
            frame = raw.astype(object).where(raw.notna(), "").map(_text)
        else:
            tabs = path.suffix.lower() == ".tsv"
            frame = pd.read_csv(
                path, sep="\t" if tabs else separator, dtype=str, keep_default_na=False,
                encoding="utf-8-sig", header=None,
            ).fillna("")  # fmt: skip
            frame = frame.iloc[1:].set_axis([str(c) for c in frame.iloc[0]], axis=1)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, ValueError, IndexError) as error:  # errors of pandas and pyarrow
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: cannot be read as a table ({reason}); save it as CSV in UTF-8, separated by "
            "commas, or as TSV or Parquet"
        ) from error
    frame.columns = [str(column).strip() for column in frame.columns]
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise DataError(f"{path}: columns of one name: {', '.join(twice)}; rename one")
    return frame.map(str.strip).reset_index(drop=True)


def _text(value: object) -> str:
    """Text of a value from Parquet; whole floats (a column of integers with gaps) without .0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def is_absent(text: str) -> bool:
    """Whether a cell says nothing: empty, n/a, NaN or none."""
    return text.strip().lower() in ABSENT


def metadata_of(rows: Iterable[Mapping[str, object]]) -> list[dict[str, str | float]]:
    """Turn rows of text into metadata.

    Parameters
    ----------
    rows
        Cells by column; a name that `Case` does not take gets ``meta_`` before it.

    Returns
    -------
    list
        One mapping a row, absent cells left out. A column becomes numbers if every one of its
        cells is a finite number and none begins with a zero as codes do (``007``).
    """
    cells = [
        {f"meta_{key}" if is_taken(key) else key: str(value) for key, value in row.items()}
        for row in rows
    ]
    cells = [{key: text for key, text in row.items() if not is_absent(text)} for row in cells]
    columns = {key for row in cells for key in row}
    numeric = {key for key in columns if all(_is_number(row[key]) for row in cells if key in row)}
    return [
        {key: float(text) if key in numeric else text for key, text in row.items()} for row in cells
    ]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and not _CODE.match(text) and "_" not in text
    except ValueError:
        return False


def split_of(text: str) -> Split | None:
    """Split that a table names, in any of the usual words; None for an absent cell.

    Raises
    ------
    DataError
        If it is another word.
    """
    if is_absent(text):
        return None
    try:
        return _SPLITS[text.strip().lower()]
    except KeyError:
        raise DataError(
            f"split is {text!r}, expected one of {', '.join(_SPLITS)} or nothing"
        ) from None
