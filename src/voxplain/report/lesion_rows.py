"""Numbers and words of every lesion, for the table and the text of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from voxplain.records.lesion_tables import LesionResult
from voxplain.report.lesion_types import style
from voxplain.report.wording import number, percent

_FOR, _AGAINST = "217 96 15", "31 111 181"  # red, green and blue of the page's two colours
_PEAKS = ("peak_positive", "peak_negative")


def methods_of(result: LesionResult) -> list[str]:
    """Return the methods of the saliency table, in order of their first row."""
    return [str(m) for m in dict.fromkeys(result.saliency["method"])]


def channels_of(result: LesionResult, method: str) -> list[str]:
    """Return the channels of one method's maps, in order of their first row."""
    rows = result.saliency[result.saliency["method"] == method]
    return [str(c) for c in dict.fromkeys(rows["channel"])]


def unit_of(result: LesionResult, method: str) -> str:
    """Return the unit of one method's maps."""
    return str(result.saliency.loc[result.saliency["method"] == method, "unit"].iloc[0])


def strongest(result: LesionResult, method: str) -> pd.Series:
    """Largest |a| of every lesion in any channel, by its name."""
    rows = result.saliency[result.saliency["method"] == method]
    size = rows[list(_PEAKS)].abs().max(axis=1)
    return size.groupby(rows["instance"].astype(str)).max()


def place_words(row: Mapping[Any, Any], rank: int) -> str:
    """Write a centroid: ``L 23.1  P 10.2  S 4.0``; 2D: as the grid counts."""
    values = [float(row[f"{axis}_mm"]) for axis in "xyz"]
    if rank == 2:
        return "\u2002".join(f"{v:.1f}" for v in values[:2])
    return "\u2002".join(
        f"{ends[0] if v < 0 else ends[1]}\u00a0{abs(v):.1f}"
        for ends, v in zip(("LR", "PA", "IS"), values, strict=True)
    )


def lesion_rows(result: LesionResult, ends: Mapping[str, float]) -> list[dict[str, Any]]:
    """Describe every lesion.

    Parameters
    ----------
    result
        Lesions and their numbers.
    ends
        By method: value of the strongest colour.

    Returns
    -------
    list
        One dictionary a lesion, in the order of the table of instances; ``numbers``: for each
        method, in the order of `ends`, a list with the numbers of each channel.
    """
    found = {
        (str(r["instance"]), str(r["method"]), str(r["channel"])): r
        for r in result.saliency.to_dict("records")
    }
    channels = {method: channels_of(result, method) for method in ends}
    kept = {name for name, _ in result.maps}
    rows = []
    for row in result.instances.to_dict("records"):
        name, kind = str(row["instance"]), str(row["type"])
        rows.append(
            {
                "name": name,
                "type": kind,
                "words": style(kind).words,
                "colour": style(kind).colour,
                "n_voxels": int(row["n_voxels"]),
                "volume": float(row["volume_mm3"]),
                "place": place_words(row, result.lesions.grid.rank),
                "probability": float(row["probability_mean"]),
                "probability_max": float(row["probability_max"]),
                "overlap": float(row["overlap"]),
                "partners": str(row["partners"] or "").replace(";", ", "),
                "is_border": bool(row["touches_border"]),
                "has_map": name in kept,
                "numbers": [
                    [_numbers(found.get((name, method, c)), c, ends[method]) for c in names]
                    for method, names in channels.items()
                ],
            }
        )
    return rows


def _numbers(row: Mapping[Any, Any] | None, channel: str, end: float) -> dict[str, Any]:
    """Numbers of one lesion's channel; all missing where its map was not made."""
    nan = math.nan
    known = {} if row is None else row
    values = {
        name: float(known.get(name, nan))
        for name in (*_PEAKS, "mean_inside", "share", "peak_distance_mm")
    }
    cells = [(name, values[name], number(values[name])) for name in _PEAKS]
    return {
        "channel": channel,
        **values,
        "cells": [(value, text, _tint(value, end)) for _, value, text in cells],
        "share_text": percent(values["share"]),
    }


def _tint(value: float, end: float) -> str:
    """Background of a cell: the map's own scale, paler."""
    if not (end > 0 and math.isfinite(value)) or value == 0:
        return ""
    strength = round(60 * min(1.0, abs(value) / end))
    return f"rgb({_FOR if value > 0 else _AGAINST} / {strength}%)" if strength else ""


def with_type(table: pd.DataFrame, result: LesionResult, method: str) -> pd.DataFrame:
    """Return one method's rows of a table of the result, with the type of each lesion."""
    types = {
        str(name): str(kind)
        for name, kind in zip(result.instances["instance"], result.instances["type"], strict=True)
    }
    rows = table[table["method"] == method]
    return rows.assign(
        type=[types[str(name)] for name in rows["instance"]], channel=rows["channel"].astype(str)
    )


def pictured(rows: Sequence[Mapping[str, Any]], n: int) -> list[int]:
    """Choose the lesions that get pictures: the largest of each type, then the largest.

    Parameters
    ----------
    rows
        From `lesion_rows`.
    n
        At most so many.

    Returns
    -------
    list
        Positions in `rows`, the most important first.
    """
    by_size = sorted(range(len(rows)), key=lambda i: -float(rows[i]["volume"]))
    firsts: dict[str, int] = {}
    for i in by_size:
        firsts.setdefault(str(rows[i]["type"]), i)
    return list(dict.fromkeys([*firsts.values(), *by_size]))[:n]
