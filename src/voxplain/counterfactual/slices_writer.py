"""Slices written one after the other: memory holds one, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from voxplain.counterfactual.slices import ARRAYS, COLUMNS, TABLE
from voxplain.errors import DataError
from voxplain.space.write import atomic_folder


class SlicesWriter:
    """Appends slices to files that `voxplain.counterfactual.slices.read_slices` opens.

    Made by `slices_writer`. `n`, `n_abnormal` and `is_varied` tell of what was added: slices,
    abnormal ones, and whether the pixels of any slice differ.

    Parameters
    ----------
    files
        Open binary file of each array.
    size
        Rows and columns.
    """

    def __init__(self, files: Mapping[str, BinaryIO], size: tuple[int, int]) -> None:
        self._files, self._size = files, size
        self._rows: list[tuple[str, int, str, int]] = []
        self.n_abnormal, self.is_varied = 0, False
        for name in files:
            self._write_header(name)

    @property
    def n(self) -> int:
        """Slices added."""
        return len(self._rows)

    @property
    def table(self) -> pd.DataFrame:
        """One row a slice, columns `COLUMNS`."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS))

    def add(self, row: tuple[str, int, str, int], **arrays: NDArray[Any] | int) -> None:
        """Append a slice.

        Parameters
        ----------
        row
            Case, patient, plane, number.
        **arrays
            Each of the arrays of `Slices` that are written, (rows, columns); of ``labels`` the
            number.

        Raises
        ------
        DataError
            If an array is missing, is not to be written, or has another size.
        """
        faults = [f"{name} is not expected" for name in arrays if name not in self._files]
        faults += [f"{name} is missing" for name in self._files if name not in arrays]
        faults += [
            f"{name} has shape {np.shape(array)}, expected {self._size}"
            for name, array in arrays.items()
            if name != "labels" and np.shape(array) != self._size
        ]
        if faults:
            raise DataError("slices: " + "; ".join(faults))
        for name, array in arrays.items():
            self._files[name].write(np.ascontiguousarray(array, ARRAYS[name]).tobytes())
        self._rows.append(row)
        self.n_abnormal += int(arrays["labels"])
        self.is_varied = self.is_varied or bool(np.ptp(arrays["images"]) > 0)

    def finish(self) -> None:
        """Write how many slices there are."""
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name == "labels":
            return (self.n,)
        return (self.n, *([1] if name in ("images", "clean") else []), *self._size)

    def _write_header(self, name: str) -> None:
        """Write the header of an .npy file; numpy leaves room in it for more rows."""
        header = {
            "descr": dtype_to_descr(np.dtype(ARRAYS[name])),
            "fortran_order": False,
            "shape": self._shape(name),
        }
        write_array_header_1_0(self._files[name], header)


@contextmanager
def slices_writer(
    folder: Path, size: tuple[int, int], *, has_clean: bool = False
) -> Iterator[SlicesWriter]:
    """Give a writer of the slices of a folder; they appear whole or not at all.

    Parameters
    ----------
    folder
        Replaces what is in it; it may be that of slices that are read meanwhile.
    size
        Rows and columns.
    has_clean
        Also write `clean`.
    """
    with atomic_folder(folder) as place, ExitStack() as stack:
        names = [name for name in ARRAYS if has_clean or name != "clean"]
        files = {name: stack.enter_context((place / f"{name}.npy").open("wb")) for name in names}
        writer = SlicesWriter(files, size)
        yield writer
        writer.finish()
        writer.table.to_csv(place / TABLE, index=False)
        if not has_clean:
            (folder / "clean.npy").unlink(missing_ok=True)
