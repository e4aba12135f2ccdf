"""Values of the players of a game, and of pairs of them, as tables of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from voxplain.records.explanation import Explanation
from voxplain.records.player_table import PlayerTable
from voxplain.report.wording import number

N_PLAYERS = 20
"""Players of a target that are shown; the rest is counted."""

_N_PAIRED = 12  # players in a matrix of pairs
_FOR, _AGAINST = "217 96 15", "31 111 181"  # red, green and blue of the page's two colours


def games(explanation: Explanation) -> dict[str, Any]:
    """Tables of each target that was played for, in the order of the targets."""
    table = explanation.players
    if table is None:
        return {"games": []}
    names = [t.name for t in explanation.targets]
    played = set(table.frame["target"])
    return {"games": [(i, n, _game(table, n)) for i, n in enumerate(names) if n in played]}


def strongest(table: PlayerTable, target: str) -> pd.DataFrame:
    """Rows of the players' own values for one target, largest |value| first."""
    own = table.frame[(table.frame["partner"] == "") & (table.frame["target"] == target)]
    order = own["value"].abs().sort_values(ascending=False, kind="stable", na_position="last")
    return own.loc[order.index]


def with_error(value: float, error: float) -> str:
    """Write a value with its standard error; an exact value stands alone."""
    return f"{number(value)} ± {number(error, 2)}" if error > 0 else number(value)


def _game(table: PlayerTable, target: str) -> dict[str, Any]:
    rows = strongest(table, target)
    shown, rest = rows.head(N_PLAYERS), rows.iloc[N_PLAYERS:]
    largest = float(rows["value"].abs().max()) if len(rows) else 0.0
    words = ""
    if len(rest):
        total = number(float(rest["value"].sum()))
        words = f"and {len(rest)} more, which sum to {total}: see players.csv"
    return {
        "rows": [
            {
                "player": row["player"],
                "value": row["value"],
                "text": with_error(row["value"], row["error"]),
                "left": _width(-row["value"], largest),
                "right": _width(row["value"], largest),
                "n_voxels": row["n_voxels"],
            }
            for row in shown.to_dict("records")
        ],
        "rest": words,
        "pairs": _pairs(table, target),
    }


def _width(value: float, largest: float) -> str:
    """Half of a bar, in percent of the whole."""
    return f"{49 * value / largest:.1f}" if largest > 0 and value > 0 else "0.0"


def _pairs(table: PlayerTable, target: str) -> dict[str, Any] | None:
    """Matrix of the interactions of the players that interact most; None without any."""
    frame = table.frame
    if not ((frame["partner"] != "") & (frame["target"] == target)).any():
        return None
    matrix = table.interactions(target)
    total = matrix.abs().sum(axis=1).sort_values(ascending=False, kind="stable")
    kept = [name for name in matrix.index if name in set(total.index[:_N_PAIRED])]
    shown = matrix.loc[kept, kept]
    values = shown.to_numpy(dtype=np.float64)
    top = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    rest = len(matrix) - len(kept)
    return {
        "names": kept,
        "rows": [
            (name, [_cell(value, top) for value in row])
            for name, row in zip(kept, values.tolist(), strict=True)
        ],
        "rest": f"{rest} players that interact less are left out: see players.csv" if rest else "",
    }


def _cell(value: float, top: float) -> dict[str, str]:
    if np.isnan(value):
        return {"value": "nan", "text": "", "colour": ""}
    strength = round(65 * (abs(value) / top) ** 0.7) if top > 0 else 0
    colour = f"rgb({_FOR if value > 0 else _AGAINST} / {strength}%)" if strength else ""
    return {"value": f"{value:.6g}", "text": number(value, 2), "colour": colour}
