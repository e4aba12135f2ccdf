"""How alike the maps of every two models are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from voxplain.records.assessment import REPEAT, REPRODUCE
from voxplain.report.assess_tables import Tables, said
from voxplain.report.colours import INK, SHARES
from voxplain.report.drawing import MUTED, Drawing, blank

SIMILARITIES = ("ssim", "spearman", "legacy_ssim")
"""What is drawn, of what was computed."""

AGREEMENT, AGREEING = "prediction_agreement", 0.7
"""Metric of two models' predictions, and from where on they say the same (Dice; of classes 1)."""

_LEAST = 3  # of two models a matrix has one number
_MOST_COLUMNS = 4


def drawn_similarities(tables: Tables) -> list[str]:
    """Return the measures by which maps of two models were compared and that are drawn."""
    scores = tables.assessment.scores
    rows = scores[scores["stage"].isin([REPEAT, REPRODUCE]) & (scores["method"] != "")]
    known = set(rows[rows["value"].notna()]["metric"])
    return [name for name in SIMILARITIES if name in known]


def model_matrix(tables: Tables, metric: str) -> Drawing | None:
    """Draw the mean similarity of the maps of every two models: a panel a method.

    Parameters
    ----------
    tables, metric
        What is drawn.

    Returns
    -------
    Drawing or None
        Table: ``method, stage, model, against, n, mean``, n and mean over cases, of the mean over
        a case's targets. None for fewer than three models.
    """
    scores = tables.assessment.scores
    rows = scores[
        scores["stage"].isin([REPEAT, REPRODUCE])
        & (scores["metric"] == metric)
        & (scores["method"] != "")
        & scores["value"].notna()
    ]
    models = [name for name in tables.models if name in {*rows["model"], *rows["against"]}]
    if len(models) < _LEAST:
        return None
    key = ["method", "stage", "model", "against"]
    cases = rows.groupby([*key, "case"], sort=False, as_index=False).agg(value=("value", "mean"))
    table: pd.DataFrame = cases.groupby(key, sort=False, as_index=False).agg(
        n=("value", "size"), mean=("value", "mean")
    )
    labels = [name for name in tables.labels if (table["method"] == name).any()]
    n_columns = min(_MOST_COLUMNS, len(labels))
    n_rows = -(-len(labels) // n_columns)
    side = 0.5 * len(models)
    margin = 0.072 * max(len(name) for name in models) + 0.15  # inches of 7.5 point text
    figure = blank(
        max(margin + (side + 0.25) * n_columns + 0.2, 3.0), (side + 0.35) * n_rows + margin
    )
    width, height = figure.get_size_inches()
    for at, name in enumerate(labels):
        row, column = divmod(at, n_columns)
        axes = figure.add_axes(
            ((margin + column * (side + 0.25)) / width,
             (height - (row + 1) * (side + 0.35)) / height, side / width, side / height)
        )  # fmt: skip
        values = _square(table[table["method"] == name], models)
        axes.imshow(values, cmap=SHARES, vmin=0.0, vmax=1.0, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
            shade = MUTED if np.isnan(value) else "white" if value > 0.45 else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=shade)
        is_low = at + n_columns >= len(labels)
        axes.set_xticks(range(len(models)), models if is_low else [], rotation=90, parse_math=False)
        axes.set_yticks(range(len(models)), models if column == 0 else [], parse_math=False)
        axes.tick_params(length=0, colors=INK, labelsize=7.5)
        axes.spines[:].set_visible(False)
        axes.set_title(said(name), loc="left", fontsize=8.5, color=INK, pad=3, parse_math=False)
    return Drawing(figure, table)


def by_agreement(scores: pd.DataFrame) -> pd.DataFrame:
    """Split the similarity of two models' maps by whether the models agree on the case.

    Parameters
    ----------
    scores
        Of an assessment. Models agree where ``prediction_agreement`` is at least `AGREEING`.

    Returns
    -------
    DataFrame
        Columns ``method, stage, metric, n_agree, agree, n_differ, differ``: number of scores and
        their mean on either side, NaN where there is none. Empty if nothing tells agreement.
    """
    key = ["case", "model", "against", "target", "stage"]
    rows = scores[scores["stage"].isin([REPEAT, REPRODUCE])]
    told = rows[(rows["method"] == "") & (rows["metric"] == AGREEMENT)].dropna(subset="value")
    maps = rows[(rows["method"] != "") & rows["metric"].isin(SIMILARITIES)].dropna(subset="value")
    both = maps.merge(told[[*key, "value"]], on=key, suffixes=("", "_told"))
    found = []
    for names, part in both.groupby(["method", "stage", "metric"], sort=False):
        is_alike = part["value_told"] >= AGREEING
        alike, other = part.loc[is_alike, "value"], part.loc[~is_alike, "value"]
        found.append((*names, len(alike), alike.mean(), len(other), other.mean()))
    columns = ["method", "stage", "metric", "n_agree", "agree", "n_differ", "differ"]
    return pd.DataFrame(found, columns=columns)


def _square(rows: pd.DataFrame, models: list[str]) -> np.ndarray:
    """Mean similarities (models × models), the same on both sides of the diagonal, NaN on it."""
    values = np.full((len(models),) * 2, np.nan)
    for row in rows.to_dict("records"):
        i, j = models.index(row["model"]), models.index(row["against"])
        values[i, j] = values[j, i] = row["mean"]
    return values
