"""What ``voxplain study report`` computes, writes and prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from voxplain.cli.job import result_folder
from voxplain.errors import DataError, RecordError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.records.provenance import Cost, Provenance
from voxplain.records.saved_tables import save_tables
from voxplain.report.cohort_findings import standouts
from voxplain.report.cohort_page import CohortReport, write_cohort_report
from voxplain.space.labelmap import nearest
from voxplain.study.anomaly_settings import PRESETS, Detector, Features
from voxplain.study.cohort_comparison import compare_tables
from voxplain.study.importance import cumulated
from voxplain.study.local_importance import local_against_global
from voxplain.study.store import DONE, Store
from voxplain.study.summary import (
    Comparison,
    StudySummary,
    SummarySettings,
    adjusted_comparisons,
    adjusted_summaries,
    summarise,
)

VALUES: tuple[CohortValue, ...] = ("share", "positive", "negative")
Two = tuple[CohortTable, CohortTable, tuple[str, str], str]
"""Two tables, what they are called, and what they have in common."""


def report_job(
    folder: Path, out: Path, *, against: Path | None, reference: Path | None, preset: str,
    detector: Detector | None, features: Features | None = None, cases: Sequence[str] = (),
    alpha: float, min_group: int, n_boot: int, seed: int, is_quiet: bool,
) -> None:  # fmt: skip
    """Summarise a study and write its page and tables."""
    anomalies = replace(PRESETS[preset], seed=seed)
    if detector is not None:
        anomalies = replace(anomalies, detector=detector)
    if features is not None:
        anomalies = replace(anomalies, features=features)
    settings = SummarySettings(
        alpha=alpha, min_group=min_group, n_boot=n_boot, seed=seed, anomalies=anomalies,
        bias_preset="agg2exp" if preset == "agg2exp" else "voxplain",
    )  # fmt: skip
    console = Console(stderr=True)
    with console.status("reading") as status:
        store = Store(folder)
        pairs = store.partitions()
        if not pairs:
            raise RecordError(f"{folder} has no finished case; see voxplain study status {folder}")
        summaries = []
        for pair in pairs:
            status.update(f"summarising {' · '.join(pair)}")
            ordinary = None if reference is None else _alike(store, Store(reference), pair)
            table = store.table(*pair, values=known_values(store))
            summary = summarise(table, settings, reference=ordinary)
            shown = {case: local_against_global(table, case) for case in cases}
            summaries.append(replace(summary, local={**summary.local, **shown}))
        status.update("comparing")
        twos = _between_models(summaries)
        if against is not None:
            twos += _between_studies(summaries, store, Store(against))
        compared = [_compared(two, len(twos), settings) for two in twos]
        summaries, comparisons = adjusted_summaries(summaries), adjusted_comparisons(compared)
        status.update("drawing")
        runs = store.runs()
        made = CohortReport(
            name=folder.resolve().name,
            summaries=summaries,
            runs=runs,
            n_cases=len(store.cases()),
            n_patients=store.cases()["patient"].nunique(),
            comparisons=comparisons,
            planes=store.planes,
            plan=store.plan,
        )
        tables = tables_of(summaries, comparisons)
        with result_folder(out) as place:
            save_tables(place, tables, _provenance(store, runs, settings), "voxplain study report")
            write_cohort_report(made, place / "report.html")
    if not is_quiet:
        _print(made, out, [*(f"{name}.csv" for name in tables), "provenance.json", "report.html"])


def tables_of(
    summaries: Sequence[StudySummary], comparisons: Sequence[Comparison]
) -> dict[str, pd.DataFrame]:
    """Tables of a report by the name of their file; an empty one is left out."""

    def of_each(frames: Iterator[tuple[StudySummary, pd.DataFrame]]) -> pd.DataFrame:
        told = []
        for summary, frame in frames:
            names = {"model": summary.table.model, "method": summary.table.method}
            rest = frame.drop(columns=[c for c in names if c in frame])
            told.append(rest.assign(**names)[[*names, *rest.columns]])
        return pd.concat(told, ignore_index=True) if told else pd.DataFrame()

    every = {
        "importance": of_each((s, s.importance) for s in summaries),
        "cumulated": of_each(
            (s, cumulated(s.importance, s.table.extra_regions)) for s in summaries
        ),
        "contextual": of_each((s, s.contextual) for s in summaries),
        "anomalies": of_each((s, s.scores) for s in summaries),
        "drivers": of_each(
            (s, frame.assign(case=case, target=s.driver_targets[case]))
            for s in summaries
            for case, frame in s.drivers.items()
        ),
        "local": of_each((s, frame) for s in summaries for frame in s.local.values()),
        "dice": of_each((s, s.against_dice) for s in summaries),
        "low_dice": of_each((s, s.detection) for s in summaries),
        "bias": of_each((s, frame) for s in summaries for frame in (s.bias, s.outlier_bias)),
        "comparisons": pd.concat(
            [one.frame.assign(of=one.of) for one in comparisons], ignore_index=True
        )
        if comparisons
        else pd.DataFrame(),
    }
    return {name: frame for name, frame in every.items() if len(frame)}


def one_partition(store: Store, model: str | None, method: str | None) -> tuple[str, str]:
    """Model and method of a store, by their names or because there is one.

    Raises
    ------
    DataError
        If several or none fit.
    """
    pairs = store.partitions()
    fit = [pair for pair in pairs if model in (None, pair[0]) and method in (None, pair[1])]
    if len(fit) != 1:
        known = "; ".join(" · ".join(pair) for pair in pairs) or "none"
        raise DataError(
            f"{store.folder}: {len(fit)} results fit; choose with --model and --method among: "
            f"{known}"
        )
    return fit[0]


def _alike(store: Store, other: Store, pair: tuple[str, str]) -> CohortTable:
    """Table of the same model and method in another study; of the only one, if both have one."""
    pairs = other.partitions()
    if pair in pairs:
        return other.table(*pair, values=known_values(other))
    if len(pairs) == len(store.partitions()) == 1:
        return other.table(*pairs[0], values=known_values(other))
    names = [" · ".join(one) for one in pairs]
    raise DataError(
        f"{other.folder} has no result of {' · '.join(pair)}{nearest(' · '.join(pair), names)}"
    )


def known_values(store: Store, more: Sequence[CohortValue] = ()) -> list[CohortValue]:
    """Values that a page tells of, and some more; an imported table may not have all of them."""
    wanted = (*VALUES, *more)
    there = store.plan.get("values", wanted)
    return [value for value in wanted if value in there]


def _between_models(summaries: Sequence[StudySummary]) -> list[Two]:
    """Each two models that were asked with one method."""
    return [
        (a.table, b.table, (a.table.model, b.table.model), a.table.method)
        for a, b in combinations(summaries, 2)
        if a.table.method == b.table.method
    ]


def _between_studies(summaries: Sequence[StudySummary], store: Store, other: Store) -> list[Two]:
    """Each result and the other study's."""
    labels = (store.folder.resolve().name, other.folder.resolve().name)
    if labels[0] == labels[1]:
        labels = (f"{labels[0]} (1)", f"{labels[1]} (2)")
    twos = []
    for one in summaries:
        table = _alike(store, other, (one.table.model, one.table.method))
        told = f"{table.model} · {table.method}"
        of = one.title if told == one.title else f"{one.title} against {told}"
        twos.append((one.table, table, labels, of))
    return twos


def _compared(two: Two, n: int, settings: SummarySettings) -> Comparison:
    """Compare two tables, one of n comparisons."""
    a, b, labels, of = two
    frame = compare_tables(
        a, b, labels=labels, level=settings.level, seed=settings.seed, n_comparisons=n
    )
    return Comparison(labels, of, frame, settings.alpha)


def _provenance(store: Store, runs: pd.DataFrame, settings: SummarySettings) -> Provenance:
    done = runs[runs["status"] == DONE]
    n_cases = done["case"].nunique()
    n_patients = store.cases().loc[done["case"].unique(), "patient"].nunique()
    told: Mapping[str, Any] = {
        "alpha": settings.alpha, "level": settings.level, "n_boot": settings.n_boot,
        "min_group": settings.min_group, "anomalies": str(settings.anomalies),
        "plan": store.plan,
    }  # fmt: skip
    return Provenance(
        model=", ".join(dict.fromkeys(done["model"])), model_sha256="",
        case=f"{n_cases} cases of {n_patients} patients", image_sha256="",
        method="study report", parameters=told, seed=settings.seed,
        cost=Cost(
            int(done["n_forward"].sum()), int(done["n_backward"].sum()),
            float(done["seconds"].sum()), int(done["peak_memory_bytes"].max()),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _print(made: CohortReport, out: Path, files: Sequence[str]) -> None:
    console = Console(highlight=False)
    for one in standouts(made.summaries, made.comparisons):
        console.print(Text(f"- {one.subject}: {one.text}"), soft_wrap=True)
    console.print(Text(f"in {out}: {', '.join(files)}"), soft_wrap=True)
