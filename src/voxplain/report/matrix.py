"""The page's heat map of regions and targets, and the same as a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxplain.records.explanation import Explanation
from voxplain.report.figures import region_matrix
from voxplain.report.pictures import picture


def matrix(explanation: Explanation) -> dict[str, Any]:
    """Picture, columns and rows of the shares of every region in every target."""
    drawing = region_matrix(explanation)
    drawn = picture(drawing.figure, dpi=160, is_lossless=True)
    values = drawing.table.to_numpy(dtype=np.float64)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    overlap = (
        "" if explanation.regions.is_disjoint else "; regions overlap, so a row may exceed 100"
    )
    return {
        "matrix_uri": drawn.uri,
        "matrix_width": drawn.width,
        "matrix_height": drawn.height,
        "overlap_words": overlap,
        "matrix_columns": [str(c) for c in drawing.table.columns],
        "matrix_rows": [
            (str(name), [_cell(value, top) for value in row])
            for name, row in zip(drawing.table.index, values.tolist(), strict=True)
        ],
    }


def _cell(value: float, top: float) -> dict[str, Any]:
    is_drawn = top > 0 and value > 0
    return {
        "value": f"{value:.6g}",
        "text": "–" if np.isnan(value) else f"{100 * value:.1f}",
        "strength": round(75 * (value / top) ** 0.5) if is_drawn else 0,
    }
