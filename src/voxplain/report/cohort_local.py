"""One case against the cohort: its shares over the quartiles of all cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from voxplain.errors import TargetError
from voxplain.report.cohort_boxes import bar_panel
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, Drawing
from voxplain.report.wording import percent
from voxplain.space.labelmap import nearest
from voxplain.study.anatomy import colours_of, group_of
from voxplain.study.contributor_graph import wrapped

_COHORT = {"q1": "cohort_q1", "median": "cohort_median", "q3": "cohort_q3"}
_SHADE = "#dfe4ea"


def local_bars(
    local: pd.DataFrame,
    target: str,
    boxes: pd.DataFrame,
    *,
    groups: Mapping[str, str] | None = None,
    extra_regions: Sequence[str] = (),
    n_regions: int = 20,
    title: str = "",
) -> Drawing:
    """Draw the shares of one case in one target, with the cohort behind.

    Bar: the case; grey: from the first to the third quartile of the cohort, a line at its
    median; right: the case's share and its percentile in the cohort.

    Parameters
    ----------
    local
        From `voxplain.study.local_importance.local_against_global`: ``target, region, value,
        percentile``.
    target
        One of them.
    boxes
        Columns `voxplain.report.cohort_boxes.BOX`, of this target over the cohort.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`.
    extra_regions
        Those that overlap the others; they are drawn below, apart.
    n_regions
        At most so many regions beside the extra ones are drawn; the table holds them all.
    title
        Before the target, e.g. the case.

    Returns
    -------
    Drawing
        Table: rows of `local`, with ``cohort_q1, cohort_median, cohort_q3, group, is_extra``,
        from the top: by the larger of value and cohort_median.

    Raises
    ------
    TargetError
        If the target is not in `local`, or the case has no value of it.
    """
    known = local[local["target"] == target]
    if known.empty:
        names = list(dict.fromkeys(local["target"]))
        raise TargetError(f"no target {target!r}{nearest(target, names)}")
    known = known[known["value"].notna()]
    if known.empty:
        raise TargetError(f"the case has no shares of {target}: the class is not in it")
    table = known.merge(
        boxes[["region", *_COHORT]].rename(columns=_COHORT),
        on="region",
        how="left",
        validate="one_to_one",
    )
    table["group"] = [group_of(region, groups) for region in table["region"]]
    table["is_extra"] = table["region"].isin(extra_regions)
    table["size"] = np.fmax(table["value"], table["cohort_median"])
    table = table.sort_values(["is_extra", "size", "region"], ascending=[True, False, True])
    parts = table[~table["is_extra"]]
    drawn = pd.concat([parts.head(n_regions), table[table["is_extra"]]])
    places = np.arange(len(drawn)) + 0.6 * drawn["is_extra"].to_numpy(float) * bool(len(parts))
    labels = [wrapped(region, 28) for region in drawn["region"]]
    figure, axes = bar_panel(labels, float(places[-1]), drawn["group"])
    low, middle, high = (drawn[name].to_numpy(np.float64) for name in _COHORT.values())
    axes.barh(places, high - low, left=low, height=0.84, color=_SHADE, zorder=1)
    axes.vlines(middle, places - 0.42, places + 0.42, color=MUTED, linewidth=1.2, zorder=3)
    colours = colours_of(drawn["group"])
    axes.barh(
        places, drawn["value"], height=0.4, color=[colours[g] for g in drawn["group"]], zorder=2
    )
    for at, (_, row) in zip(places, drawn.iterrows(), strict=True):
        rank = "" if np.isnan(row["percentile"]) else f"  P{row['percentile']:.0f}"
        axes.text(
            1.012, at, percent(float(row["value"])) + rank, transform=axes.get_yaxis_transform(),
            va="center", fontsize=7.5, color=INK,
        )  # fmt: skip
    axes.set_yticks(places, labels, fontsize=8, linespacing=1.05, parse_math=False)
    axes.set_xlim(left=0)
    axes.set_xlabel(
        "share of |a|, %; grey: quartiles and median of the cohort; P: percentile of the case",
        fontsize=8.5, color=MUTED,
    )  # fmt: skip
    said = f", {len(parts.head(n_regions))} of {len(parts)} regions" * (len(parts) > n_regions)
    axes.set_title(
        wrapped(f"{title}: {target}{said}" if title else target + said, 90), loc="left",
        fontsize=9.5, color=INK, pad=7, parse_math=False,
    )  # fmt: skip
    return Drawing(figure, table.drop(columns=["size"]).reset_index(drop=True))
