"""What stands out in a cohort, as plain sentences with their numbers, the weightiest first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from voxplain.report.cohort_rows import between, counted, probability
from voxplain.report.wording import number, percent
from voxplain.space.labelmap import BACKGROUND
from voxplain.study.anomalies import ALL_TARGETS
from voxplain.study.summary import Comparison, StudySummary

N_SAID = 3
"""Sentences of one kind about one model and method; the others are counted."""

HIGH_SHARE = 0.1
"""Share of a target from which an extra region is said to matter."""

Outcome = Literal["stands out", "nothing found", "not tested"]
_STYLES: dict[Outcome, str] = {
    "stands out": "issue", "nothing found": "passed", "not tested": "open",
}  # fmt: skip


@dataclass(frozen=True)
class Standout:
    """A sentence.

    Parameters
    ----------
    outcome
        Whether something was found.
    subject
        What it is about.
    text
        The sentence, with its numbers.
    """

    outcome: Outcome
    subject: str
    text: str

    @property
    def style(self) -> str:
        """Class of its colour on the page."""
        return _STYLES[self.outcome]


def standouts(
    summaries: Sequence[StudySummary], comparisons: Sequence[Comparison]
) -> list[Standout]:
    """Say what stands out: patients, regions, differences, groups, detection of low Dice.

    Parameters
    ----------
    summaries
        One for each model and method.
    comparisons
        Of models or cohorts.

    Returns
    -------
    list of Standout
        Findings first, by subject in the order above; then what was looked for and not found,
        and what could not be tested.
    """
    of_each: tuple[Callable[[StudySummary], list[Standout]], ...] = (
        _patients, _regions, _groups, _detection,
    )  # fmt: skip
    found: list[Standout] = []
    for place, make in enumerate(of_each):
        if place == 2:
            found += [one for pair in comparisons for one in _differences(pair)]
        for summary in summaries:
            prefix = f"{summary.title}: " if len(summaries) > 1 else ""
            found += [Standout(s.outcome, s.subject, prefix + s.text) for s in make(summary)]
    order = list(_STYLES)
    return sorted(found, key=lambda one: order.index(one.outcome))


def _patients(summary: StudySummary) -> list[Standout]:
    subject = "patients"
    scores = summary.scores
    if scores.empty:
        return [Standout("not tested", subject, f"{summary.notes['anomalies']}.")]
    outliers = scores[scores["is_outlier"].astype(bool)]
    n_cases = scores["case"].nunique()
    if outliers.empty:
        smallest = scores["q"].min()
        told = f" (smallest q {probability(smallest)})" if np.isfinite(smallest) else ""
        limit = (
            f" With {n_cases} cases no p is below {probability(1 / (n_cases + 1))}."
            if summary.settings.anomalies.tail == "none" else ""
        )  # fmt: skip
        return [
            Standout(
                "nothing found", subject,
                f"No case among {n_cases} is handled unlike the others at q ≤ "
                f"{summary.settings.anomalies.level:g}{told}.{limit} Those with the highest scores "
                "are shown below.",
            )
        ]  # fmt: skip
    whole = outliers["target"] == ALL_TARGETS
    outliers = outliers.assign(_whole=whole).sort_values(
        ["_whole", "q", "p_tail", "score"], ascending=[False, True, True, False]
    )
    cases = list(dict.fromkeys(outliers["case"]))
    said = []
    for case in cases[:N_SAID]:
        rows = outliers[outliers["case"] == case]
        first = rows.iloc[0]
        targets = [str(t) for t in rows["target"] if t != ALL_TARGETS]
        where = f" in {_list(targets)}" if targets else ""
        of = "" if first["target"] == ALL_TARGETS else f" of {first['target']}"
        said.append(
            Standout(
                "stands out", subject,
                f"{case} is handled unlike the others{where}: score{of} {number(first['score'])}, "
                f"{_tested(first['p_tail'], first['q'])}{_driven(summary, case)}"
                f"{_dice(summary, case)}.",
            )
        )  # fmt: skip
    return said + _more(subject, len(cases) - len(said), "case", "cases are", n_cases)


def _regions(summary: StudySummary) -> list[Standout]:
    """Extra regions with a high share, and a background that leads."""
    subject = "regions"
    rows = summary.importance.dropna(subset=["mean"])
    extra = rows[rows["region"].isin(summary.table.extra_regions)]
    high = extra[extra["mean"] >= HIGH_SHARE].sort_values("mean", ascending=False, kind="stable")
    found = []
    for region, own in high.groupby("region", sort=False):
        told = [f"{_share(row)} of {row['target']}" for row in own.to_dict("records")]
        found.append(
            Standout("stands out", subject, f"The extra region {region} takes {_list(told, 3)}.")
        )
    if len(extra) and high.empty:
        top = _largest(extra, "mean")
        found.append(
            Standout(
                "nothing found", subject,
                f"No extra region takes {percent(HIGH_SHARE)} of a target; the largest is "
                f"{top['region']} with {_share(top)} of {top['target']}.",
            )
        )  # fmt: skip
    parts = rows[rows["region"].isin(summary.table.parts)]
    leaders = parts.loc[parts.groupby("target", sort=False)["mean"].idxmax()]
    lead = leaders[leaders["region"] == BACKGROUND].sort_values("mean", ascending=False)
    if len(lead) and len(summary.table.parts) > 1:
        first = lead.iloc[0].to_dict()
        found.append(
            Standout(
                "stands out", subject,
                f"The background is the most important region of {_list(list(lead['target']))}: "
                f"{_share(first)} of {first['target']}.",
            )
        )  # fmt: skip
    return found


def _differences(pair: Comparison) -> list[Standout]:
    subject = "differences"
    a, b = pair.labels
    rows = pair.frame.dropna(subset=["q"])
    if rows.empty:
        return [
            Standout("not tested", subject, f"{a} against {b} ({pair.of}): {_why(pair.frame)}.")
        ]
    clear = rows[rows["q"] <= pair.alpha]
    ordered = clear.loc[clear["difference"].abs().sort_values(ascending=False, kind="stable").index]
    if ordered.empty and pair.least_q > pair.alpha:
        # too few patients for any single difference: silence is no finding
        return [
            Standout(
                "not tested", subject,
                f"{a} against {b} ({pair.of}): with so few patients or permutations no p is below "
                f"{probability(rows['p_least'].min())}, so that among "
                f"{counted(pair.n_tests or len(rows), 'test')} no single difference can have "
                f"q ≤ {pair.alpha:g} (smallest q {probability(rows['q'].min())}).{_notes(rows)}",
            )
        ]  # fmt: skip
    if ordered.empty:
        return [
            Standout(
                "nothing found", subject,
                f"{a} against {b} ({pair.of}): no share differs at q ≤ {pair.alpha:g} among "
                f"{counted(pair.n_tests or len(rows), 'test')} (smallest q "
                f"{probability(rows['q'].min())}).{_notes(rows)}",
            )
        ]  # fmt: skip
    found = [
        Standout(
            "stands out", subject,
            f"{row['target']} draws {_by(row)} on {row['region']} in {a} than in {b} ({pair.of}): "
            f"{percent(row['mean_a'])} against {percent(row['mean_b'])}, "
            f"{_tested(row['p'], row['q'])}.",
        )
        for row in ordered.head(N_SAID).to_dict("records")
    ]  # fmt: skip
    return found + _more(subject, len(ordered) - len(found), "share", "shares differ", len(rows))


def _groups(summary: StudySummary) -> list[Standout]:
    subject = "groups"
    alpha = summary.settings.alpha
    frames = [
        frame.assign(_about=about)
        for frame, about in ((summary.bias, ""), (summary.outlier_bias, "being an outlier"))
        if len(frame)
    ]
    if not frames:
        return [Standout("not tested", subject, f"{summary.notes['bias']}.")]
    rows = pd.concat(frames, ignore_index=True)
    tests = rows.dropna(subset=["q"])
    if tests.empty:
        return [Standout("not tested", subject, f"{_why(rows)}.")]
    clear = tests[tests["q"] <= alpha].assign(_size=lambda r: -r["effect"].abs())
    clear = clear.sort_values(["q", "_size"], kind="stable")
    # effects of different names have different scales
    seen = rows.dropna(subset=["smallest_effect"]).groupby("effect_name", sort=False)
    least = [
        f"{name} of {number(value, 2)}" for name, value in seen["smallest_effect"].median().items()
    ]
    power = (
        f" With {int(tests['n_patients'].median())} patients only a {' or a '.join(least)} or more "
        "would have been seen in four of five such cohorts."
        if least
        else ""
    )
    if clear.empty:
        columns = _list(list(dict.fromkeys(tests["column"])))
        return [
            Standout(
                "nothing found", subject,
                f"Nothing goes with {columns} at q ≤ {alpha:g} among "
                f"{counted(len(tests), 'test')} (smallest q {probability(tests['q'].min())})."
                f"{power}",
            )
        ]  # fmt: skip
    found = [
        Standout(
            "stands out", subject,
            f"{row['_about'] or row['feature']} goes with {row['column']}"
            f"{' (' + row['groups'] + ')' if row['groups'] else ''}: {row['effect_name']} "
            f"{number(row['effect'], 2)}{_ends(row)}, {_tested(row['p'], row['q'])}.",
        )
        for row in clear.head(N_SAID).to_dict("records")
    ]  # fmt: skip
    return found + _more(subject, len(clear) - len(found), "feature", "features do", len(tests))


def _detection(summary: StudySummary) -> list[Standout]:
    subject = "low Dice"
    rows = summary.detection
    if rows.empty:
        return [Standout("not tested", subject, f"{summary.notes['dice']}.")]
    known = rows.dropna(subset=["auroc"])
    if known.empty:
        return [Standout("not tested", subject, f"{_why(rows)}.")]
    # an interval above one half is no finding by itself where many classes are looked at
    ties = summary.against_dice
    clear = ties[(ties["q"] <= summary.settings.alpha) & (ties["rho"] < 0)]
    good = known[(known["low"] > 0.5) & known["target"].isin(clear["target"])]
    good = good.sort_values("auroc", ascending=False)
    if good.empty:
        best = _largest(known, "auroc")
        return [
            Standout(
                "nothing found", subject,
                "Anomaly scores do not tell cases of low Dice from the others; the best AUROC is "
                f"{number(best['auroc'], 2)}{_ends(best)} for {best['target']}, one of "
                f"{counted(len(known), 'test')}.",
            )
        ]  # fmt: skip
    found = [
        Standout(
            "stands out", subject,
            f"The anomaly score of {row['target']} finds cases with Dice below "
            f"{number(row['threshold'], 2)}: AUROC {number(row['auroc'], 2)}{_ends(row)}, "
            f"{int(row['n_low'])} of {int(row['n_low'] + row['n_rest'])} cases.",
        )
        for row in good.head(N_SAID).to_dict("records")
    ]  # fmt: skip
    return found + _more(subject, len(good) - len(found), "class", "classes are", 0)


def _more(subject: str, n: int, one: str, many: str, among: int) -> list[Standout]:
    if n < 1:
        return []
    word = f"{one} is" if n == 1 else f"more {many}"
    told = f" (of {among})" if among else ""
    return [Standout("stands out", subject, f"and {n} {word}{told}: see the tables below.")]


def _share(row: Mapping[Hashable, Any]) -> str:
    ends = between(float(row["low"]), float(row["high"]), "share")
    return f"{percent(float(row['mean']))}{f' ({ends})' if ends else ''}"


def _by(row: Mapping[Hashable, Any]) -> str:
    """Write by how many points a share is larger or smaller, with the interval of that."""
    is_more = row["difference"] > 0
    ends = sorted(100 * (row[name] if is_more else -row[name]) for name in ("low", "high"))
    told = f" ({ends[0]:.1f} to {ends[1]:.1f})".replace("-", "−") if not np.isnan(ends[0]) else ""
    return f"{100 * abs(row['difference']):.1f} points{told} {'more' if is_more else 'less'}"


def _ends(row: Mapping[Hashable, Any]) -> str:
    ends = between(float(row["low"]), float(row["high"]))
    return f" ({ends})" if ends else ""


def _tested(p: float, q: float) -> str:
    return f"p {probability(p)}, q {probability(q)}"


def _list(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(map(str, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _driven(summary: StudySummary, case: str) -> str:
    """Region that drives a score most."""
    frame = summary.drivers.get(case)
    if frame is None or frame.empty or not frame["contribution"].notna().any():
        return ""
    row = _largest(frame, "contribution")
    return (
        f"; {row['region']} drives it, with {percent(row['share'])} where "
        f"{percent(row['expected'])} was expected"
    )


def _dice(summary: StudySummary, case: str) -> str:
    dice = summary.table.dice
    if not len(dice.columns) or dice.loc[case].isna().all():
        return ""
    return f"; mean Dice {number(float(np.nanmean(dice.loc[case].to_numpy(np.float64))), 2)}"


def _largest(frame: pd.DataFrame, column: str) -> Mapping[Hashable, Any]:
    """Row with the largest known value."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(np.float64)))].to_dict()


def _why(frame: pd.DataFrame) -> str:
    notes = [str(note) for note in dict.fromkeys(frame["note"]) if note]
    return "; ".join(notes[:2]) if notes else "no test was possible"


def _notes(frame: pd.DataFrame) -> str:
    notes = [str(note) for note in dict.fromkeys(frame["note"]) if note]
    return f" {notes[0]}." if notes else ""
