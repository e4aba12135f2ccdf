"""Reading a wide table a stretch of rows at a time: CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.data.metadata import ABSENT, is_absent
from voxplain.errors import DataError

BLOCK_BYTES = 32 * 2**20  # of a CSV, read at a time
BLOCK_ROWS = 5000  # of a Parquet file
_MISSING = ("na", "null", *ABSENT)  # R and SQL write the first two
_NULLS = sorted({form for word in _MISSING for form in (word, word.upper(), word.capitalize())})


class WideFile:
    """A table on disk.

    Parameters
    ----------
    path
        The suffix says which: ``.parquet``, ``.tsv`` (separated by tabs), else CSV.

    Attributes
    ----------
    names
        Of the columns, without spaces around them.
    first_row
        Number of the first row of values, as a spreadsheet counts them.

    Raises
    ------
    DataError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_parquet = path.suffix.lower() == ".parquet"
        self._separator = "\t" if path.suffix.lower() == ".tsv" else ","
        self.first_row = 1 if self._is_parquet else 2
        try:
            self._names = self._header()
        except FileNotFoundError:
            raise DataError(f"no such file: {path}") from None
        except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
            raise self._unreadable(error) from error
        self.names = [name.strip() for name in self._names]

    def stretches(
        self, numbers: Sequence[str], texts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.float64], pd.DataFrame]]:
        """Read the rows in their order.

        Parameters
        ----------
        numbers
            Columns of numbers; a cell that is empty, NA, NaN, n/a or none is NaN.
        texts
            Columns of text; such a cell is empty.

        Yields
        ------
        tuple
            (n_rows, len(numbers)) float64, and the texts.

        Raises
        ------
        DataError
            If a cell is no number, or a row has too few or too many cells.
        """
        import pyarrow as pa

        chosen = [self.names.index(name) for name in (*numbers, *texts)]
        source = self._parquet(chosen) if self._is_parquet else self._csv(chosen, len(numbers))
        try:
            for batch in source:
                columns = [
                    batch.column(i).cast(pa.float64()).to_numpy(zero_copy_only=False)
                    for i in range(len(numbers))
                ]
                cells = {
                    name: _texts(batch.column(i)) for i, name in enumerate(texts, len(numbers))
                }
                yield np.column_stack(columns), pd.DataFrame(cells, dtype=object)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise self._unreadable(error) from error

    def _header(self) -> list[str]:
        if self._is_parquet:
            import pyarrow.parquet as pq

            return [str(name) for name in pq.read_schema(self.path).names]
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream, delimiter=self._separator), [])

    def _csv(self, chosen: Sequence[int], n_numbers: int) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import csv as arrow

        keys = [str(i) for i in range(len(self.names))]
        types = {str(i): pa.float64() for i in chosen[:n_numbers]}
        types |= {str(i): pa.string() for i in chosen[n_numbers:]}
        yield from arrow.open_csv(
            self.path,
            arrow.ReadOptions(block_size=BLOCK_BYTES, column_names=keys, skip_rows=1),
            arrow.ParseOptions(delimiter=self._separator),
            arrow.ConvertOptions(
                column_types=types, include_columns=[str(i) for i in chosen], null_values=_NULLS
            ),
        )

    def _parquet(self, chosen: Sequence[int]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        names = [self._names[i] for i in chosen]
        with pq.ParquetFile(self.path) as source:
            for batch in source.iter_batches(BLOCK_ROWS, columns=names):
                yield batch.select(names)

    def _unreadable(self, error: Exception) -> DataError:
        told = " ".join(str(error).split())
        # what follows is the row itself, with whose it is
        told = re.sub(r"(got \d+):.*", r"\1", told)
        told = re.sub(
            r"CSV column #(\d+)", lambda found: f"column {self.names[int(found[1])]!r}", told
        )
        return DataError(
            f"{self.path}: cannot be read as a table ({told}); save it as CSV in UTF-8, separated "
            "by commas with points in its numbers, or as TSV or Parquet"
        )


def _texts(column: Any) -> list[str]:
    """Texts of a column; whole floats (integers with gaps) without .0, what is absent is empty."""
    found = []
    for value in column.to_pylist():
        whole = isinstance(value, float) and value.is_integer()
        text = "" if value is None else str(int(value) if whole else value).strip()
        found.append("" if text.lower() in _MISSING or is_absent(text) else text)
    return found
