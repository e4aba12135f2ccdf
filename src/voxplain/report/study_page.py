"""One self-contained page with the tables of a study of lesions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.records.provenance import Provenance
from voxplain.report.html import plain, provenance_rows, write_page
from voxplain.report.lesion_figure import table_of

N_ROWS = 2000
"""Rows of a table that are shown; the rest is counted."""


def write_study_report(
    tables: Mapping[str, pd.DataFrame], path: Path | str, provenance: Provenance
) -> Path:
    """Write a page that holds tables, to be sorted by any column.

    Parameters
    ----------
    tables
        By title, in the order of the page, e.g. ``distributions``, ``tests``, ``detector``.
    path
        File to write; replaced whole or not at all.
    provenance
        How they were made.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    page = {
        "template": "lesions_study.html.j2",
        "styles": ("lesions.css",),
        "case": provenance.case,
        "model": provenance.model,
        "tables": [_table(name, table) for name, table in tables.items()],
        "provenance": provenance_rows(provenance),
        "version": provenance.versions.get("voxplain", ""),
    }
    return write_page(plain(page, ("page.js",)), path)


def _table(name: str, table: pd.DataFrame) -> dict[str, Any]:
    shown = table_of(table.head(N_ROWS))
    left = [not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rest = len(table) - len(shown["rows"])
    return {
        "name": name.replace("_", " ").capitalize(),
        "heads": list(zip(shown["columns"], left, strict=True)),
        "rows": [
            list(zip(texts, values, left, strict=True))
            for texts, values in zip(shown["rows"], shown["values"], strict=True)
        ],
        "rest": f"and {rest} more rows: see {name}.csv" if rest else "",
    }
