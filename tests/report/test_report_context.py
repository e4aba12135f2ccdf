"""The page of context: curves as defined, every lesion's millimetres, names that stay text."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import LabelError, OutputError
from voxplain.records.lesion_tables import CONTEXT
from voxplain.records.provenance import Provenance
from voxplain.report import html
from voxplain.report.context_page import context_figure, write_context_report
from voxplain.report.study_page import write_study_report
from voxplain.study.context_need import context_curves, context_medians, context_need

NASTY = "<script>alert(1)</script>$x$"
DISTANCES = (0.0, 2.0, 4.0, 8.0, 16.0, math.inf)


def record(model: str) -> Provenance:
    return Provenance(model, "ab" * 32, "case 1", "cd" * 32, "context", {"fill": 0.0},
                      versions={"voxplain": "0.1.0"})  # fmt: skip


def measured(models: tuple[str, ...] = ("net", "other"), modes: tuple[str, ...] = ("keep",),
             n: int = 9, seed: int = 1) -> pd.DataFrame:  # fmt: skip
    """Lesions whose probability rises (keep) or falls (remove) with the distance."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in models:
        for mode in modes:
            for i in range(n):
                final, need = rng.uniform(0.5, 0.98), rng.uniform(1, 9)
                kind = "TN" if i == n - 1 else "TP" if i % 2 else "FP"
                for d in DISTANCES:
                    seen = d if mode == "keep" else 16.0 - min(d, 16.0)
                    p = final * (1 if math.isinf(seen) else min(1.0, seen / need))
                    if mode == "remove":
                        p = final if d == 0 else p
                    rows.append(
                        (f"case {i % 4}", f"patient {i % 4}", model, f"P{i}", kind, mode,
                         "constant 0", d, None, p, p, int(p > 0.4), p > 0.4, 30)
                    )  # fmt: skip
    return pd.DataFrame(rows, columns=CONTEXT)


def test_figure_is_drawn_from_the_curves() -> None:
    frame = measured()
    table = context_figure(frame).table
    expected = context_curves(frame)
    both = table.merge(expected, on=["model", "distance_mm"], suffixes=("", "_of_study"))
    assert len(both) == len(expected) == 2 * len(DISTANCES)
    for ours, theirs in (("mean", "probability_mean"), ("sd", "probability_sd"),
                         ("n_detected", "n_detected_of_study"),
                         ("n_lesions", "n_lesions_of_study")):  # fmt: skip
        assert both[ours].to_numpy(float) == pytest.approx(both[theirs].to_numpy(float))
    assert table["n_lesions"].max() == 8  # the control region is left out


def test_page_holds_curves_medians_and_lesions(tmp_path: Path) -> None:
    frame = measured(modes=("keep", "remove"))
    need = context_need(frame)
    medians = context_medians(need, n_boot=50)
    path = write_context_report(
        frame, need, tmp_path / "context.html", [record("net"), record("other")], medians=medians
    )
    source = path.read_text("utf-8")
    assert source.count("<article") == 2
    assert "Only the lesion and its surroundings up to a distance are kept" in source
    assert "The surroundings up to a distance are taken away" in source
    assert "Millimetres to 95 % of the final probability" in source
    part = source.split('id="medians"')[1].split("</section>")[0]
    assert len(re.findall("<tr><th scope", part)) == len(medians)
    values = [float(v) for v in re.findall(r'<td data-v="([^"]+)">(?:\d+\.\d|not)', part)]
    assert values == pytest.approx(medians["median_mm"].tolist())
    part = source.split('id="need"')[1].split("</section>")[0]
    assert len(re.findall("<tr><th scope", part)) == len(need)
    for value in need["need_mm"]:
        assert f">{'not reached' if math.isnan(value) else f'{value:.1f}'}</td>" in part
    assert "net: model sha256" in source
    assert "other: model sha256" in source
    scripts = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    assert f'content="{html._policy(scripts)}"' in source
    assert not re.findall(r"https?://", source)


def test_names_stay_text_and_medians_are_optional(tmp_path: Path) -> None:
    frame = measured(models=(NASTY,))
    frame["case"] = NASTY
    frame["instance"] = [f"{NASTY}{name}" for name in frame["instance"]]
    path = write_context_report(frame, context_need(frame), tmp_path / "a.html", record(NASTY))
    source = path.read_text("utf-8")
    assert len(re.findall(r"<script\b", source)) == 2  # the page's data and its script
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$: how much of their surroundings" in source
    assert 'id="medians"' not in source


def test_one_distance_one_lesion_and_none(tmp_path: Path) -> None:
    frame = measured(models=("net",), n=2)
    one = frame[(frame["instance"] == "P0") & np.isinf(frame["distance_mm"])]
    table = context_figure(one).table
    assert table["n_lesions"].tolist() == [1]
    assert table["sd"].isna().all()
    empty = frame.head(0)
    path = write_context_report(empty, context_need(empty), tmp_path / "b.html", record("net"))
    assert "No lesion was found" in path.read_text("utf-8")


def test_bad_input(tmp_path: Path) -> None:
    frame = measured()
    need = context_need(frame)
    with pytest.raises(LabelError, match="missing: fill"):
        write_context_report(frame.drop(columns="fill"), need, tmp_path / "c.html", record("net"))
    with pytest.raises(LabelError, match="missing: need_mm"):
        write_context_report(
            frame, need.drop(columns="need_mm"), tmp_path / "c.html", record("net")
        )
    with pytest.raises(OutputError, match="is a folder"):
        write_context_report(frame, need, tmp_path, record("net"))
    assert not list(tmp_path.iterdir())


def test_study_page_holds_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxplain.report.study_page.N_ROWS", 3)
    rng = np.random.default_rng(2)
    tests = pd.DataFrame({"feature": [NASTY, "b"], "p_value": rng.uniform(size=2), "n": [4, 5]})
    curve = pd.DataFrame({"x": rng.uniform(size=5)})
    tables = {"mixed_tests": tests, "roc": curve, "none": curve.head(0)}
    source = write_study_report(tables, tmp_path / "s.html", record("net")).read_text("utf-8")
    assert len(re.findall(r"<script\b", source)) == 2
    assert "<h2>Mixed tests</h2>" in source
    assert '<th data-sort="text" class="left">feature</th>' in source
    assert '<th data-sort="number">p value</th>' in source
    values = [float(v) for v in re.findall(r'data-v="([^"]+)"', source)]
    expected = [v for row in tests[["p_value", "n"]].to_numpy() for v in row]
    assert values == pytest.approx([*expected, *curve["x"].head(3)])
    assert "and 2 more rows: see roc.csv" in source
    assert "The table is empty." in source
