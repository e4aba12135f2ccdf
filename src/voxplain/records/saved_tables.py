"""Tables of one result: a CSV each, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from voxplain.records.archive import INDEX, file_sha256, write_json
from voxplain.records.provenance import Provenance
from voxplain.space.write import atomic_file


def save_tables(
    folder: Path, tables: Mapping[str, pd.DataFrame], provenance: Provenance, form: str
) -> None:
    """Write every table as .csv, and provenance.json with their hashes.

    Parameters
    ----------
    folder
        Existing.
    tables
        By the name of the file, without its ending.
    provenance
        How they were made.
    form
        What the folder holds, e.g. ``voxplain study report``.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    files = [folder / f"{name}.csv" for name in tables]
    for file, table in zip(files, tables.values(), strict=True):
        with atomic_file(file) as temporary:
            table.to_csv(temporary, index=False)
    write_json(
        folder / INDEX,
        {
            "format": form,
            "version": 1,
            "provenance": provenance.to_dict(),
            "files": {file.name: file_sha256(file) for file in files},
        },
    )
