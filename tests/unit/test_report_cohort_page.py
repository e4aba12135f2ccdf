"""The page of a study: what stands out, no identifier, no path, names that stay text."""

from __future__ import annotations

import html as html_lib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cohort_tables import EXTRA, STRANGE, cohort_table, planes

from voxplain.errors import RecordError
from voxplain.report import html
from voxplain.report.cohort_findings import standouts
from voxplain.report.cohort_page import CohortReport, without_folders, write_cohort_report
from voxplain.report.cohort_patients import outline_colours, panels
from voxplain.report.cohort_rows import N_ROWS, Column, between, points, probability, rows_table
from voxplain.study.cohort_comparison import compare_tables
from voxplain.study.store import done_run, failed_run
from voxplain.study.summary import Comparison, StudySummary, SummarySettings, summarise

FEW = SummarySettings(n_boot=100, n_extremes=2)
ONE = SummarySettings(n_boot=100, n_extremes=1)
NASTY = "<script>alert(1)</script>$x$"


@pytest.fixture(scope="module")
def summary() -> StudySummary:
    return summarise(cohort_table(), FEW)


@pytest.fixture(scope="module")
def comparison(summary: StudySummary) -> Comparison:
    other = cohort_table(model="other", seed=1, shift=0.8)
    frame = compare_tables(summary.table, other, labels=("net", "other"), n_permutations=2000)
    return Comparison(("net", "other"), "gradient", frame)


def made(*summaries: StudySummary, **options: object) -> CohortReport:
    runs = pd.DataFrame([
        done_run(case, "net", "gradient", seconds=3.0, n_forward=4, n_backward=2)
        for case in summaries[0].table.cases.index
    ] + [
        failed_run(f"bad {i}", "net", "gradient", "ImageError: /home/jane/x/ct.nii.gz is damaged")
        for i in range(7)
    ])  # fmt: skip
    known = {"runs": runs, "n_cases": 47, "n_patients": 45, **options}
    return CohortReport("chest", summaries, **known)  # type: ignore[arg-type]


def section(source: str, name: str) -> str:
    start = source.index(f'<section id="{name}">')
    return source[start : source.index("</section>", start)]


@pytest.fixture(scope="module")
def source(
    summary: StudySummary, comparison: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> str:
    report = made(
        summary, comparisons=[comparison], planes=lambda *names: planes(),
        plan={"models": {"net": {"sha256": "ab12"}}, "place": "/home/jane/models/net", "seed": 3},
    )  # fmt: skip
    path = write_cohort_report(report, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text("utf-8")


def test_findings_name_the_planted_effects_with_their_numbers(
    summary: StudySummary, comparison: Comparison
) -> None:
    found = standouts([summary], [comparison])
    by = {subject: [s for s in found if s.subject == subject] for subject in
          ("patients", "regions", "differences", "groups")}  # fmt: skip
    assert all(rows[0].outcome == "stands out" for rows in by.values())
    first = by["patients"][0].text
    scores = summary.scores
    row = scores[(scores["case"] == STRANGE) & (scores["target"] == "all targets")].iloc[0]
    assert first.startswith(f"{STRANGE} is handled unlike the others")
    assert f"q {probability(row['q'])}" in first
    assert "mean Dice 0.300" in first or "mean Dice 0.30" in first
    extra = summary.importance[summary.importance["region"] == EXTRA]
    share = extra.loc[extra["mean"].idxmax()]
    assert f"{100 * share['mean']:.1f} % ({between(share['low'], share['high'], 'share')}) of " in (
        by["regions"][0].text
    )
    largest = comparison.frame.loc[comparison.frame["difference"].abs().idxmax()]
    wanted = f"{largest['target']} draws {100 * abs(largest['difference']):.1f} points"
    assert by["differences"][0].text.startswith(wanted)
    bias = summary.bias.loc[summary.bias["q"].idxmin()]
    assert f"{bias['feature']} goes with sex" in by["groups"][0].text
    assert [s.outcome for s in found] == sorted(
        (s.outcome for s in found), key=["stands out", "nothing found", "not tested"].index
    )


def test_nothing_found_is_said_too() -> None:
    table = cohort_table(30, strange=False, extra=False, seed=4)
    alike = summarise(table, FEW)
    quiet = replace(
        alike, scores=alike.scores.assign(is_outlier=False, q=0.6),
        bias=alike.bias.assign(q=0.7), outlier_bias=alike.outlier_bias.head(0),
    )  # fmt: skip
    frame = compare_tables(table, replace(table, model="same"), n_permutations=500)
    said = standouts([quiet], [Comparison(("a", "b"), "gradient", frame)])
    texts = {s.subject: s.text for s in said if s.outcome == "nothing found"}
    assert "No case among 30 is handled unlike" in texts["patients"]
    assert "no share differs" in texts["differences"]
    assert "would have been seen in four of five such cohorts" in texts["groups"]
    none = summarise(cohort_table(12, metadata=False, dice=False), FEW)
    untested = {s.subject for s in standouts([none], []) if s.outcome == "not tested"}
    assert untested == {"patients", "groups", "low Dice"}


def test_page_has_every_section_and_forbids_the_network(source: str) -> None:
    for name in ("findings", "failed", "importance", "spread", "relations", "anomalies", "local",
                 "bias", "comparisons", "provenance"):  # fmt: skip
        assert f'<section id="{name}">' in source
    scripts = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    assert f'content="{html._policy(scripts)}"' in html_lib.unescape(source)
    assert not re.findall(r"https?://", source)
    assert section(source, "spread").count("<img") == 3
    assert section(source, "comparisons").count("<img") == 1
    anomalies = section(source, "anomalies")
    assert anomalies.count('class="patient"') == 4
    assert anomalies.count("plane of case") == 12
    assert anomalies.index(f"<h5>{STRANGE}</h5>") < anomalies.index("Most ordinary cases")
    for name in ("Global importance", "How contextual", "Positive and negative", "Extra regions"):
        assert name in section(source, "importance")
    assert "How well each linkage" in section(source, "relations")


def test_no_patient_and_no_folder_is_on_the_page(source: str) -> None:
    assert "secret-" not in source
    assert "jane" not in source
    failed = section(source, "failed")
    assert "…/ct.nii.gz is damaged" in failed
    assert "and 2 more" in failed
    assert "7 failed" in source
    assert "ab12" in section(source, "provenance")


def test_names_stay_text(tmp_path: Path) -> None:
    table = cohort_table(25, (NASTY,), model=NASTY, extra=False)
    cases = table.cases.rename(index={STRANGE: NASTY})
    cases[NASTY] = cases.pop("sex")
    table = replace(table, cases=cases, dice=table.dice.set_axis(cases.index))
    summary = summarise(table, ONE)
    assert summary.extremes[0][0] == NASTY
    report = replace(made(summary), name=NASTY)
    text = write_cohort_report(report, tmp_path / "r.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert html_lib.escape(NASTY) in text


def test_two_models_are_chosen_between(tmp_path: Path) -> None:
    first, other = (
        summarise(cohort_table(25, ("heart",), model=model, dice=False), ONE)
        for model in ("net", "other")
    )
    text = write_cohort_report(made(first, other), tmp_path / "r.html").read_text("utf-8")
    assert text.count("<option") == 2
    assert len(re.findall(r'<article class="target" data-target="1">', text)) == 6
    assert "other · gradient: " in section(text, "findings")


def test_small_cohort_without_anything_else(tmp_path: Path) -> None:
    table = cohort_table(3, ("heart",), metadata=False, dice=False, extra=False)
    summary = summarise(replace(table, values={"share": table.values["share"]}), FEW)
    report = CohortReport("tiny", [summary], pd.DataFrame(), 3, 3)
    text = write_cohort_report(report, tmp_path / "r.html").read_text("utf-8")
    assert '<section id="failed">' not in text
    assert '<section id="local">' not in text
    assert "not tested" in section(text, "findings")
    with pytest.raises(RecordError, match="finished case"):
        CohortReport("none", [], pd.DataFrame(), 0, 0)


def test_rows_beyond_the_limit_are_counted() -> None:
    frame = pd.DataFrame({"case": [f"c{i}" for i in range(N_ROWS + 5)], "x": 0.5, "none": ""})
    table = rows_table(frame, (Column("case", kind="text"), Column("x"), Column("none"),
                               Column("absent")))  # fmt: skip
    assert [head for head, _ in table["heads"]] == ["case", "x"]
    assert len(table["rows"]) == N_ROWS
    assert table["rest"] == "and 5 more rows"
    assert table["rows"][0] == [("c0", "", "", True), ("0.500", "", 0.5, False)]


def test_numbers_are_written_for_readers() -> None:
    assert [probability(p) for p in (0.0004, 0.0123, 1.0, np.nan)] == [
        "< 0.001",
        "0.012",
        "1.0",
        "–",
    ]
    assert points(-0.1234) == "−12.3"
    assert between(np.nan, 1.0) == ""
    assert between(0.101, 0.25, "share") == "10.1 to 25.0 %"


def test_paths_lose_their_folders() -> None:
    assert without_folders("a /x/y z/b.nii.gz; C:\\u\\v\\w.dcm") == "a …/b.nii.gz; …/w.dcm"
    assert without_folders("ImageError: data/p1/x.nii.gz, ~/m/net") == (
        "ImageError: …/x.nii.gz, …/net"
    )
    for text in ("2 / 3 windows / case", "lung/heart, 3/4", "net · gradient"):
        assert without_folders(text) == text


def test_outlines_of_planes() -> None:
    colours = outline_colours(["background", "heart", "aorta"])
    assert set(colours) == {"heart", "aorta"}
    found = panels(planes(), colours, ["heart"])
    assert [one["name"] for one in found] == ["axial", "coronal", "sagittal"]
    assert all(one["labels"] == ["heart", "aorta"] for one in found)
    assert panels({}, colours) == []
    flat = {"picture:image": planes()["axial:image"]}
    assert [(one["name"], one["labels"]) for one in panels(flat, colours)] == [("picture", [])]
