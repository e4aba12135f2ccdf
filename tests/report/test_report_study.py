"""The page of a study: figures drawn from the numbers, reasons told, names that stay text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.lesion_studies import Tables, lesion_study

from voxplain.errors import LabelError
from voxplain.records.provenance import Provenance
from voxplain.report import html
from voxplain.report.study_page import write_study_report
from voxplain.report.study_plots import detector_curves, feature_boxes
from voxplain.study.error_detector import error_detector
from voxplain.study.feature_values import feature_values
from voxplain.study.lesion_statistics import lesion_statistics

NASTY = "<script>alert(1)</script>$x$"
SHOWN = ("detector", "effects", "tests", "mixed", "distributions")


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.fixture(scope="module")
def once(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    return studied(made(rng))


@pytest.fixture
def found(once: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Give each test tables of its own, made once: they may be changed."""
    return {name: table.copy() for name, table in once.items()}


def record() -> Provenance:
    return Provenance("net", "ab" * 32, "7 cases", "", "instances-study", {},
                      versions={"voxplain": "0.1.0"})  # fmt: skip


def made(rng: np.random.Generator, **options: object) -> Tables:
    """Two channels, seven patients that all have a lesion of each type."""
    instances, saliency, shells = lesion_study(rng, 7, 6, **options)  # type: ignore[arg-type]
    instances["type"] = ["TP", "TP", "FP", "FP", "FN", "TN"] * 7
    other = saliency.assign(channel="t1", peak_positive=3 * saliency["peak_positive"] + 1)
    return (
        instances,
        pd.concat([saliency, other], ignore_index=True),
        pd.concat([shells, shells.assign(channel="t1")], ignore_index=True),
    )


def with_model(tables: Tables, name: str) -> Tables:
    both = (pd.concat([t, t.assign(model=name)], ignore_index=True) for t in tables)
    return tuple(both)  # type: ignore[return-value]


def one_channel(tables: Tables) -> Tables:
    saliency, shells = (t[t["channel"] == "flair"].reset_index(drop=True) for t in tables[1:])
    return tables[0], saliency, shells


def studied(tables: Tables) -> dict[str, pd.DataFrame]:
    statistics = lesion_statistics(*tables[:2], n_boot=20)
    detector = error_detector(*tables, n_boot=20)
    return {
        **statistics._asdict(), **detector._asdict(), "values": feature_values(*tables[:2])
    }  # fmt: skip


def written(found: dict[str, pd.DataFrame], path: Path, **figures: pd.DataFrame) -> str:
    figures = figures or {name: found[name] for name in ("values", "roc", "pr")}
    page = write_study_report({n: found[n] for n in SHOWN}, path / "s.html", record(), **figures)
    return page.read_text("utf-8")


def section(source: str, name: str) -> str:
    start = source.index(f'<section id="{name}">')
    return source[start : source.index("</section>", start)]


def test_boxes_are_those_of_the_distributions_and_effects(rng: np.random.Generator) -> None:
    instances, saliency, shells = made(rng)
    saliency.loc[rng.choice(len(saliency), 5, replace=False), "share"] = np.nan
    found = studied((instances, saliency, shells))
    values = found["values"][found["values"]["method"] == "gradient"]
    table = feature_boxes(values, found["effects"]).table
    assert len(table) == 2 * 3 * 4
    both = table.merge(
        found["distributions"].drop(columns=["low", "high"]),
        on=["channel", "feature", "type"], suffixes=("", "_of_study"),
    )  # fmt: skip
    assert len(both) == len(table)
    for ours, theirs in (
        ("n", "n_of_study"), ("lower_quartile", "quartile_1"),
        ("median", "median_of_study"), ("upper_quartile", "quartile_3"),
    ):  # fmt: skip
        assert both[ours].to_numpy(float) == pytest.approx(both[theirs].to_numpy(float))
    effects = found["effects"].query("type_a == 'TP' and type_b == 'FP'")
    names = ["cliffs_delta", "low", "high", "p_holm"]
    beside = table[table["type"] == "FP"].merge(
        effects, on=["channel", "feature"], suffixes=("", "_of_study")
    )
    assert len(beside) == 2 * 3
    theirs = beside[[f"{name}_of_study" for name in names]].to_numpy(float)
    assert beside[names].to_numpy(float) == pytest.approx(theirs)
    assert table.loc[table["type"] != "FP", names].isna().all(axis=None)


def test_effect_is_written_beside_its_boxes(found: dict[str, pd.DataFrame]) -> None:
    values = found["values"][found["values"]["method"] == "gradient"]
    effects = found["effects"].assign(cliffs_delta=-0.87, low=-1.0, high=0.25, p_holm=0.012)
    lone = (effects["channel"] == "t1") & (effects["feature"] == "share")
    effects.loc[lone, ["low", "high", "p_holm"]] = np.nan
    panels = feature_boxes(values, effects).figure.axes
    said = {axes.get_title("left"): [t.get_text() for t in axes.texts] for axes in panels}
    assert said["flair, largest positive value"] == ["TP over FP: δ −0.87 (−1.00 to 0.25)\np 0.012"]
    assert said["t1, share of the channel"] == ["TP over FP: δ −0.87\nnot tested"]
    assert [len(a.texts) for a in feature_boxes(values).figure.axes] == [0] * 6
    without = values[values["type"] != "FP"]
    other = effects[effects["type_b"] != "FP"]
    assert [len(a.texts) for a in feature_boxes(without, other).figure.axes] == [0] * 6


def test_curves_are_drawn_from_the_points(rng: np.random.Generator) -> None:
    found = studied(made(rng, effect=1.0))
    roc, pr, detector = found["roc"], found["pr"], found["detector"]
    drawing = detector_curves(roc, pr, detector)
    key = ["predictor", "threshold"]
    table = drawing.table.set_index(key)
    assert table.index.is_unique
    assert len(table) == len(roc)
    wanted = roc.set_index(key)[["false_alarm_rate", "hit_rate"]]
    pd.testing.assert_frame_equal(table.loc[wanted.index, list(wanted)], wanted)
    wanted = pr.set_index(key)
    ours = table.loc[wanted.index]
    assert ours["precision"].to_numpy() == pytest.approx(wanted["precision"].to_numpy())
    assert ours["hit_rate"].to_numpy() == pytest.approx(wanted["recall"].to_numpy())
    left, right = drawing.figure.axes
    for i, row in detector.reset_index(drop=True).iterrows():
        # the areas under the drawn lines are the numbers in the legends
        at, height = left.lines[1 + int(str(i))].get_data()
        assert np.trapezoid(height, at) == pytest.approx(row["auroc"])
        line = right.lines[1 + int(str(i))]
        at, height = (np.asarray(data, float) for data in line.get_data())
        assert line.get_drawstyle() == "steps-pre"
        assert np.sum(np.diff(at) * height[1:]) == pytest.approx(row["precision_average"])
        texts = [a.get_legend().get_texts()[int(str(i))].get_text() for a in (left, right)]
        ends = f"{row['auroc_low']:.2f} to {row['auroc_high']:.2f}"
        assert texts[0] == f"{row['predictor']}: {row['auroc']:.2f} ({ends})"
        assert f"{row['precision_average']:.2f} (" in texts[1]
    assert np.array_equal(np.transpose(left.lines[0].get_data()), [[0, 0], [1, 1]])
    assert set(right.lines[0].get_ydata()) == {0.5}  # as many false as true positives


def test_page_says_what_was_studied_and_shows_every_figure(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    found = studied(with_model(one_channel(made(rng)), "other"))
    source = written(found, tmp_path)
    assert (
        '<p class="lead" id="studied">7 patients, 7 cases, 2 models, 1 method: gradient. '
        "net: 35 lesions (14 TP, 14 FP, 7 FN) and 7 healthy control regions. other: 35 lesions"
    ) in source
    for name in ("features", "detector"):
        part = section(source, name)
        titles = re.findall(r"<h3>(.*?)</h3>", part)
        assert titles == ["net, gradient", "other, gradient"]
        assert part.count("The same as a table") == part.count("<img") == 2
    assert "95 % interval by patient" in section(source, "features")
    assert "14 false positives, the class to be found, among 14 true" in source
    assert section(source, "tables").count("<article") == len(SHOWN)
    scripts = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    assert f'content="{html._policy(scripts)}"' in source
    assert not re.findall(r"https?://", source)


def test_one_lesion_of_one_patient(tmp_path: Path, rng: np.random.Generator) -> None:
    instances, saliency, shells = made(rng)
    one = instances["case"].eq("c03") & instances["instance"].eq("P1")
    kept = instances[one].reset_index(drop=True)
    maps = saliency[saliency["case"].eq("c03") & saliency["instance"].eq("P1")]
    rings = shells[shells["case"].eq("c03") & shells["instance"].eq("P1")]
    found = studied((kept, maps.reset_index(drop=True), rings.reset_index(drop=True)))
    source = written(found, tmp_path)
    assert "1 patient, 1 case, 1 model, 1 method: gradient. net: 1 lesion (1 TP)." in source
    detector = section(source, "detector")
    assert "<img" not in detector
    assert detector.count("not computed: 0 patients with a false positive") == 1
    tables = section(source, "tables")
    assert "true positives alone, nothing to compare" in tables
    assert "The table is empty." in tables  # no pair of types


def test_names_stay_text(rng: np.random.Generator, tmp_path: Path) -> None:
    instances, saliency, shells = one_channel(made(rng))
    names = {"model": NASTY, "case": NASTY + instances["case"]}
    instances = instances.assign(**names)
    maps = [
        t.assign(model=NASTY, method=NASTY, channel=NASTY + t["channel"], case=NASTY + t["case"])
        for t in (saliency, shells)
    ]
    source = written(studied((instances, maps[0], maps[1])), tmp_path)
    assert len(re.findall(r"<script\b", source)) == 2  # the page's data and its script
    name = "&lt;script&gt;alert(1)&lt;/script&gt;$x$"
    assert source.count(f"<h3>{name}, {name}</h3>") == 2
    assert f"1 method: {name}. {name}: 35 lesions" in source


def test_reasons_stand_in_for_numbers(found: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lost = found["detector"]["predictor"] == "probability_max"
    numbers = ["n_folds", "auroc", "precision_average", "prevalence"]
    found["detector"].loc[lost, numbers] = np.nan
    found["detector"].loc[lost, "note"] = "not computed: 3 lesions have no <b>"
    found["mixed"]["note"] = "one patient"
    source = written(found, tmp_path)
    part = section(source, "detector")
    assert (
        '<p class="reason">probability_max: not computed: 3 lesions have no &lt;b&gt;</p>' in part
    )
    assert part.count("<img") == 1
    tables = section(source, "tables").split("<article")[1:]
    by_name = dict(zip(SHOWN, tables, strict=True))
    assert "not computed: 3 lesions have no &lt;b&gt; (1 row of 4)" in by_name["detector"]
    heads = re.findall(r"<th [^>]*>(.*?)</th>", by_name["detector"])
    assert heads[:5] == ["model", "method", "predictor", "note", "n fp"]
    at = heads.index("n folds")  # a count is whole though one row has none
    rows = re.findall(r"<tr>(<td.*?)</tr>", by_name["detector"])
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row)[at] for row in rows]
    assert cells == ["7", "–", "7", "7"]
    assert f"one patient ({len(found['mixed'])} rows of" in by_name["mixed"]
    assert ">note</th>" not in by_name["tests"]


def test_tables_alone_make_a_page_as_before(found: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    page = write_study_report({n: found[n] for n in SHOWN}, tmp_path / "a.html", record())
    source = page.read_text("utf-8")
    assert "<img" not in source
    assert 'id="studied"' not in source
    assert 'id="features"' not in source
    assert 'id="detector"' not in source
    figures = {name: found[name] for name in ("values", "roc", "pr")}
    tables = {"effects": found["effects"]}
    page = write_study_report(tables, tmp_path / "b.html", record(), **figures)
    source = page.read_text("utf-8")
    assert 'id="detector"' not in source  # no detector, no curves of it
    assert source.count("<img") == 1


def test_empty_tables(found: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    found = {name: table.head(0) for name, table in found.items()}
    source = written(found, tmp_path)
    assert "No lesion was studied." in source
    assert "there is nothing to draw" in section(source, "features")
    assert source.count("The table is empty.") == len(SHOWN)
    assert "<img" not in source


def test_features_without_maps_are_not_drawn(rng: np.random.Generator, tmp_path: Path) -> None:
    tables = made(rng)
    found = studied(tables)
    values = feature_values(*tables[:2], features=["volume_mm3"])
    source = written(found, tmp_path, values=values)
    assert "1 model, 0 methods. net: 35 lesions" in source
    assert "<img" not in source
    values = feature_values(*tables[:2], features=["share", "volume_mm3"])
    drawn = feature_boxes(values[values["method"] == "gradient"])
    assert len(drawn.figure.axes) == 2
    assert set(drawn.table["feature"]) == {"share"}


def test_long_curves_are_cut_and_said(
    found: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxplain.report.study_page.N_ROWS", 9)
    part = section(written(found, tmp_path), "detector")
    rows = part.split("<tbody>")[1].count("<tr>")
    assert rows == 9
    assert f"{len(found['roc']) - 9} more thresholds: see roc.csv and pr.csv" in part


@pytest.mark.parametrize(
    ("name", "column"),
    [("values", "unit"), ("effects", "p_holm"), ("roc", "hit_rate"), ("pr", "recall"),
     ("detector", "auroc")],
)  # fmt: skip
def test_missing_columns_are_told(
    found: dict[str, pd.DataFrame], tmp_path: Path, name: str, column: str
) -> None:
    found[name] = found[name].drop(columns=column)
    with pytest.raises(LabelError, match=f"missing: {column}"):
        written(found, tmp_path)
    assert not list(tmp_path.iterdir())
