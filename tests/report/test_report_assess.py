"""The page of an assessment: what it shows, what it leaves out, names that stay text."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from tests.report.assessments import METHODS, MODELS, ORDER, TRIVIAL, assessment, record

from voxplain.records.assessment import (
    ALL_TARGETS,
    BASELINE,
    COMPARISONS,
    ORIGINAL,
    PICTURES,
    RANDOM_PAIRS,
    REPEAT,
    SCORES,
    STAGES,
    SUMMARY,
    Assessment,
    frame_of,
)
from voxplain.records.finding import finding
from voxplain.report import write_assess_report
from voxplain.report.assess_cascades import cascade_curves, drawn_similarities
from voxplain.report.assess_comparisons import comparison_rows
from voxplain.report.assess_grids import Grids
from voxplain.report.assess_pairs import by_agreement, model_matrix
from voxplain.report.assess_plots import family_boxes, pair_boxes
from voxplain.report.assess_summary import summary_tables
from voxplain.report.assess_tables import FAMILIES, Tables
from voxplain.report.assess_verdicts import verdicts
from voxplain.report.wording import number

NASTY = "<script>alert(1)</script>$x$"
SECTIONS = (
    "verdicts", "performance", "summary", "boxes", "cascades", "pairs", "maps", "comparisons",
    "meanings", "codes", "provenance",
)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Assessment:
    return assessment()


@pytest.fixture(scope="module")
def page(made: Assessment, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(made, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def tables(made: Assessment) -> Tables:
    return Tables(made)


def written(made: Assessment, folder: Path) -> str:
    return write_assess_report(made, folder / "report.html").read_text("utf-8")


def sections(source: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', source)


def section(source: str, name: str) -> str:
    start = source.index(f'<section id="{name}">')
    return source[start : source.index("</section>", start)]


def small(**options: object) -> Assessment:
    """A single model, method and target."""
    few = {"models": ("net",), "methods": ("gradient",), "targets": ("liver",), "n_pictures": 1}
    return assessment(**{**few, **options})  # type: ignore[arg-type]


def empty() -> Assessment:
    return Assessment(
        scores=frame_of([], SCORES), summary=frame_of([], SUMMARY),
        comparisons=frame_of([], COMPARISONS), stages=frame_of([], STAGES),
        pictures=frame_of([], PICTURES), metrics=(), provenance=record(0),
    )  # fmt: skip


def test_page_has_every_section_and_holds_all_it_shows(page: str) -> None:
    source = page
    assert tuple(sections(source)) == SECTIONS
    assert not re.findall(r"https?://", source)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', source)
    assert "default-src 'none'" in source
    assert not re.findall(r"\bnan\b(?!\")", re.sub(r'data-v="nan"|data:[^"]*', "", source))
    facts = source[source.index('<dl class="facts">') : source.index("</dl>")]
    shown = re.findall(r"<dt>(\w+)</dt><dd>([^<]*)", facts)
    assert dict(shown) == {
        "models": "3", "methods": "3", "cases": "6", "targets": "2", "time": "1 h 12 min",
        "passes": "131\u202f346",
    }  # fmt: skip
    for figure in re.findall(r'<figure class="chart">.*?</figure>', source, re.DOTALL):
        assert "The same as a table" in figure


def test_what_was_not_measured_does_not_appear(tmp_path: Path) -> None:
    source = written(small(n_steps=0, trivial=(), cases=("a",)), tmp_path)
    assert sections(source) == ["verdicts", "performance", "summary", "boxes", "maps",
                                "meanings", "codes", "provenance"]  # fmt: skip
    assert sections(written(small(n_pictures=0), tmp_path)) == [
        name for name in SECTIONS if name not in ("pairs", "maps")
    ]


def test_empty_tables_leave_head_and_provenance(tmp_path: Path) -> None:
    source = written(empty(), tmp_path)
    assert sections(source) == ["provenance"]
    assert "<h1>" in source


def test_a_saved_assessment_gives_the_same_page(tmp_path: Path) -> None:
    made = small(n_steps=1, cases=("a", "b"), is_legacy=True)
    made.save(tmp_path)
    assert written(Assessment.load(tmp_path), tmp_path) == written(made, tmp_path)


def test_summary_shows_the_numbers_of_the_table(made: Assessment, tables: Tables) -> None:
    rows = made.summary
    rows = rows[(rows["stage"] == ORIGINAL) & (rows["method"] != "")]
    n_seen = 0
    for model in MODELS:
        for target in (ALL_TARGETS, "liver", "tumour"):
            own = rows[(rows["model"] == model) & (rows["target"] == target)]
            known = own.set_index(["method", "metric"])
            for family in summary_tables(tables, model, target):
                here = [m for m in made.metrics if m.family == family["family"]]
                names = [m.name for m in here if m.name in set(own["metric"])]
                labels = [*METHODS] + [*TRIVIAL] * bool(family["trivial"])
                shown = [*family["methods"], *family["trivial"]]
                for label, row in zip(labels, shown, strict=True):
                    for name, cell in zip(names, row["cells"], strict=True):
                        if cell is None:
                            assert (label, name) not in known.index
                            continue
                        one = known.loc[(label, name)]
                        assert cell["mean"] == f"{number(one['mean'])} ± {number(one['sd'])}"
                        assert cell["median"] == number(one["median"])
                        ends = f"{number(one['low'])} to {number(one['high'])}; n {one['n']}"
                        assert cell["ends"] == ends
                        n_seen += 1
    assert n_seen == len(rows)


def test_best_method_is_marked_by_the_direction(made: Assessment, tables: Tables) -> None:
    families = {one["family"]: one for one in summary_tables(tables, MODELS[0])}
    own = made.summary.query("model == @MODELS[0] and stage == 'original'")
    own = own[own["target"].eq(ALL_TARGETS) & own["method"].isin(METHODS)]
    means = own.pivot_table(index="method", columns="metric", values="mean").loc[list(METHODS)]
    for family, metric, wanted in (
        ("utility", "auroc", means["auroc"].idxmax()),
        ("faithfulness", "infidelity", means["infidelity"].idxmin()),
        ("efficiency", "seconds", means["seconds"].idxmin()),
    ):
        heads = [head["text"].split(" ")[0] for head in families[family]["heads"]]
        at = heads.index(metric)
        marked = [
            row["label"] for row in families[family]["methods"] if row["cells"][at]["is_best"]
        ]
        assert marked == [wanted]
        assert not any(row["cells"][at]["is_best"] for row in families[family]["trivial"])
    heads = [head["text"] for head in families["utility"]["heads"]]
    assert not any(row["cells"][heads.index("prevalence")]["is_best"]
                   for row in families["utility"]["methods"])  # fmt: skip
    assert {"auroc ↑", "prevalence"} <= set(heads)
    assert families["faithfulness"]["heads"][1]["text"] == "infidelity ↓"


def test_a_lone_method_is_not_called_the_best() -> None:
    found = summary_tables(Tables(small()), "net")
    assert not any(c["is_best"] for f in found for row in f["methods"] for c in row["cells"] if c)


def test_undefined_scores_are_counted_and_no_number_is_made_up(tmp_path: Path) -> None:
    made = small(n_steps=0, n_pictures=0)
    summary = made.summary.copy()
    auroc = (summary["metric"] == "auroc") & (summary["method"] == "gradient")
    summary.loc[auroc, ["mean", "sd", "median", "low", "high"]] = np.nan
    summary.loc[auroc, ["n", "n_undefined"]] = [0, 6]
    families = summary_tables(Tables(dataclasses.replace(made, summary=summary)), "net")
    utility = next(one for one in families if one["family"] == "utility")
    at = [head["text"] for head in utility["heads"]].index("auroc ↑")
    cell = utility["methods"][0]["cells"][at]
    assert (cell["mean"], cell["median"], cell["ends"]) == ("–", "–", "n 0; 6 undefined")


def test_every_verdict_leads_to_its_evidence(made: Assessment, page: str) -> None:
    source = page
    links = re.findall(r'class="pill [\w-]+" href="#(verdict-[\w-]+)"', source)
    addresses = re.findall(r'id="(verdict-[\w-]+)"', source)
    assert len(links) == len(set(links)) == len(made.findings) == 12 * len(MODELS) * len(METHODS)
    assert sorted(links) == sorted(addresses)
    plain = unescape(source)
    for one in made.findings:
        assert one.evidence in plain


def test_verdicts_are_told_worst_first_by_word_and_sign(tables: Tables) -> None:
    found = verdicts(tables, MODELS[0], 0)
    assert found is not None
    assert found["heads"] == list(METHODS)
    assert found["rows"][0]["code"] == "VX201"
    first = found["rows"][0]["cells"]
    assert [cell["outcome"] for cell in first] == ["passed", "passed", "issue"]
    assert [cell["sign"] for cell in first] == ["✓", "✓", "✕"]
    told = [one["outcome"] for one in found["evidence"]]
    assert (told[0], told[-1]) == ("issue", "passed")
    assert "passed" not in told[: told.index("passed")]
    counts = {one["outcome"]: one["n"] for one in found["counts"]}
    assert counts == {name: told.count(name) for name in set(told)}


def test_findings_about_something_else_are_told_too(tmp_path: Path) -> None:
    one = finding("VX107", "tip", "said of the whole", "net · unheard of")
    made = dataclasses.replace(empty(), findings=(one,))
    told = section(written(made, tmp_path), "verdicts")
    assert "said of the whole" in told
    assert "(net · unheard of)" in told
    assert "<table" not in told


def test_boxes_are_those_of_the_cases(made: Assessment, tables: Tables) -> None:
    drawing = family_boxes(tables, MODELS[1], "utility")
    assert drawing is not None
    own = made.scores.query("model == @MODELS[1] and stage == 'original' and metric == 'auroc'")
    table = drawing.table.query("metric == 'auroc'").set_index("method")
    assert list(table.index) == [*METHODS, *TRIVIAL]
    for method, part in own.groupby("method"):
        cases = part.groupby("case")["value"].mean()
        row = table.loc[method]
        assert row["n"] == len(cases)
        columns = ["lower_quartile", "median", "upper_quartile"]
        assert row[columns].to_numpy(float) == pytest.approx(cases.quantile([0.25, 0.5, 0.75]))
        assert row["mean"] == pytest.approx(cases.mean())
    means = made.summary.query("model == @MODELS[1] and metric == 'auroc'")
    means = means[means["target"] == ALL_TARGETS].set_index("method")["mean"]
    assert table["mean"].to_dict() == pytest.approx(means.to_dict())


def test_chance_is_the_prevalence_or_one_half(tables: Tables) -> None:
    drawing = family_boxes(tables, MODELS[0], "utility")
    assert drawing is not None
    chance = drawing.table.groupby("metric")["chance"].first()
    assert chance["average_precision"] == pytest.approx(0.07)  # 0.05 and 0.09
    assert chance["auroc"] == 0.5
    assert chance["normalised_average_precision"] == 0
    assert np.isnan(chance["energy_in_body"])
    assert "prevalence" not in chance.index
    titles = [axes.get_title("left") for axes in drawing.figure.axes]
    assert titles == ["average precision ↑", "normalised average precision ↑", "auroc ↑",
                      "energy in body ↑"]  # fmt: skip


def test_no_case_lies_outside_of_its_panel(tables: Tables) -> None:
    for family in ("efficiency", "utility"):
        drawing = family_boxes(tables, MODELS[0], family)
        assert drawing is not None
        scales = [axes.get_xscale() for axes in drawing.figure.axes]
        assert scales == (["log"] * 2 if family == "efficiency" else ["linear"] * 4)
        for axes in drawing.figure.axes:
            drawn = [points.get_offsets()[:, 0] for points in axes.collections
                     if isinstance(points, PathCollection)]  # fmt: skip
            values = np.concatenate(drawn)
            low, high = axes.get_xlim()
            assert low < values.min() <= values.max() < high


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_drawn_where_nothing_has_a_value(made: Assessment, family: str) -> None:
    hollow = dataclasses.replace(made, scores=made.scores.assign(value=np.nan))
    assert family_boxes(Tables(hollow), MODELS[0], family) is None
    assert pair_boxes(Tables(hollow), "ssim") is None
    assert model_matrix(Tables(hollow), "ssim") is None


def test_cascade_is_the_summary_of_each_step(made: Assessment, tables: Tables) -> None:
    table = cascade_curves(tables, MODELS[0], ORDER, "ssim").table
    for k in range(4):
        own = made.summary.query(f"model == @MODELS[0] and stage == '{ORDER}:{k}'")
        own = own[own["target"] == ALL_TARGETS].set_index(["method", "metric"])
        for row in table[table["step"] == k].to_dict("records"):
            one = own.loc[(row["method"], row["metric"])]
            assert row["mean"] == pytest.approx(one["mean"])
            assert row["n"] == one["n"] == 6
            assert row["sd"] == pytest.approx(one["sd"], abs=1e-12)
    pairs = made.scores.query("model == @MODELS[0] and stage == @RANDOM_PAIRS and metric == 'ssim'")
    wanted = pairs.groupby("method")["value"].mean()
    got = table[table["method"].isin(METHODS)].groupby("method")["random_pairs"].first()
    assert got.to_dict() == pytest.approx(wanted.to_dict())
    assert set(table["method"]) == {*METHODS, f"{BASELINE}edges"}


def test_spread_of_a_cascade_is_over_cases_and_seeds() -> None:
    made = small(cases=("a", "b"), n_pictures=0)
    other = made.scores[made.scores["stage"].str.startswith(ORDER)].assign(seed=1)
    other["value"] += 0.3
    scores = pd.concat([made.scores, other], ignore_index=True)
    table = cascade_curves(
        Tables(dataclasses.replace(made, scores=scores)), "net", ORDER, "ssim"
    ).table
    row = table.query("method == 'gradient' and step == 2").iloc[0]
    own = scores.query(f"stage == '{ORDER}:2' and method == 'gradient' and metric == 'ssim'")
    assert row["n"] == 4
    assert row["n_patients"] == 2
    assert row["mean"] == pytest.approx(own["value"].mean())
    assert row["sd"] == pytest.approx(own["value"].std(ddof=1))


def test_models_are_compared_pair_by_pair(made: Assessment, tables: Tables) -> None:
    matrix = model_matrix(tables, "ssim")
    boxes = pair_boxes(tables, "ssim")
    assert matrix is not None
    assert boxes is not None
    own = made.scores.query("metric == 'ssim' and method == 'gradient'")
    twins = own[own["stage"] == REPEAT]
    assert set(zip(twins["model"], twins["against"], strict=True)) == {("unet a", "unet b")}
    got = matrix.table.query("method == 'gradient' and stage == @REPEAT")
    assert got["mean"].item() == pytest.approx(twins["value"].mean())
    assert got["n"].item() == 6
    cells = [text.get_text() for text in matrix.figure.axes[0].texts]
    assert cells[0] == cells[4] == cells[8] == "–"
    assert cells[1] == cells[3] == f"{twins['value'].mean():.2f}"
    n = boxes.table.query("method == 'gradient'").set_index("stage")["n"].to_dict()
    assert n == {REPEAT: 6, "reproducibility": 12, RANDOM_PAIRS: 3 * 15 * 2}


def test_published_similarity_is_drawn_where_it_was_computed() -> None:
    tables = Tables(small(n_steps=1, cases=("a", "b"), n_pictures=0, is_legacy=True))
    assert drawn_similarities(tables, "net", ORDER) == ["ssim", "spearman", "legacy_ssim"]


def test_two_models_make_no_matrix() -> None:
    tables = Tables(assessment(models=MODELS[:2], n_steps=0, n_pictures=0, cases=("a", "b")))
    assert model_matrix(tables, "ssim") is None
    assert pair_boxes(tables, "ssim") is not None


def test_comparisons_say_who_is_better_by_interval_and_direction(tables: Tables) -> None:
    rows, rest = comparison_rows(tables, MODELS[0])
    own = tables.assessment.comparisons.query("model == @MODELS[0]")
    assert (len(rows), rest) == (len(own), 0)
    for shown, row in zip(rows, own.to_dict("records"), strict=True):
        sign = -1 if row["metric"] in ("infidelity", "leakage") else 1
        ends = sorted((sign * row["low"], sign * row["high"]))
        wanted = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "not told apart"
        assert shown["verdict"] == wanted
        assert shown["difference"] == row["difference"]
        assert shown["p_holm"] == row["p_holm"]
    assert {row["verdict"] for row in rows} == {"better", "worse", "not told apart"}


def test_grids_show_the_kept_planes(tables: Tables) -> None:
    grids = Grids(tables)
    cases = grids.of_cases(MODELS[0])
    assert [grid["target"] for grid in cases] == ["liver", "tumour"]
    assert cases[0]["heads"] == ["image", *METHODS, "random", "edges"]
    assert [row["name"] for row in cases[0]["rows"]] == ["case 1", "case 2"]
    zero = cases[0]["rows"][1]["cells"][3]
    assert zero["text"] == "zero everywhere"
    one = tables.assessment.scores.query(
        "model == @MODELS[0] and case == 'case 1' and target == 'liver' and method == 'gradient' "
        "and metric == 'average_precision'"
    )
    told = f"{number(one['value'].item(), 2)} (volume)"
    assert cases[0]["rows"][0]["cells"][1]["text"] == told
    assert (zero["height"], zero["width"]) == (192, 144)  # planes of 48 × 36
    (cascade,) = grids.of_cascades(MODELS[0])
    assert cascade["heads"] == ["trained", "step 1", "step 2", "step 3"]
    dice = tables.assessment.scores.query(
        "model == @MODELS[0] and target == 'liver' and metric == 'model_dice'"
    ).set_index("case")["value"]
    nearest = (dice[["case 1", "case 2"]] - dice.median()).abs().idxmin()
    assert (cascade["case"], cascade["target"]) == (nearest, "liver")
    assert [row["name"] for row in cascade["rows"]] == [*METHODS, "random", "edges"]


def test_a_lost_plane_leaves_a_gap() -> None:
    made = small()
    lost = made.pictures.query("stage == 'original' and method == 'gradient'")["file"].item()
    planes = {name: pixels for name, pixels in made.planes.items() if name != lost}
    grid = Grids(Tables(dataclasses.replace(made, planes=planes))).of_cases("net")[0]
    assert grid["heads"] == ["image", "random", "edges"]


def test_names_stay_text(tmp_path: Path) -> None:
    made = assessment(
        models=(NASTY, f"{NASTY} b"), methods=(f"{NASTY} m",), cases=(f"{NASTY} 1", f"{NASTY} 2"),
        targets=(f"{NASTY} t",), n_steps=1, n_pictures=1,
    )  # fmt: skip
    source = written(made, tmp_path)
    assert tuple(sections(source)) == SECTIONS
    assert "<script>alert" not in source
    assert "&lt;script&gt;alert" in source


def test_one_case_is_enough(tmp_path: Path) -> None:
    source = written(small(cases=("only",), n_steps=0), tmp_path)
    assert "<dt>cases</dt><dd>1<small>1 patient</small>" in source
    told = section(source, "summary")
    assert "n 1" in told
    assert "±" not in told[told.index("<table") :]


@pytest.mark.slow
def test_page_of_many_maps_of_noise_stays_small(tmp_path: Path) -> None:
    made = assessment(
        models=("net",), methods=tuple(f"method {i}" for i in range(8)), cases=tuple("abcd"),
        n_steps=8, n_pictures=4, shape=(192, 192), is_noise=True,
    )  # fmt: skip
    path = write_assess_report(made, tmp_path / "report.html")
    assert path.stat().st_size < 6e6


def test_similarity_is_split_by_whether_models_agree() -> None:
    def row(case: str, method: str, metric: str, value: float) -> dict[str, object]:
        return {
            "case": case, "patient": case, "model": "a", "seed": 0, "stage": "repeatability",
            "method": method, "target": "t", "metric": metric, "value": value, "flags": "",
            "against": "b",
        }  # fmt: skip

    rows = [
        row(case, *of)
        for case, agreement, ssim in (("x", 0.9, 0.8), ("y", 0.7, 0.6), ("z", 0.2, 0.1))
        for of in (("", "prediction_agreement", agreement), ("m", "ssim", ssim))
    ]
    (found,) = by_agreement(pd.DataFrame(rows)).to_dict(orient="records")
    assert (found["n_agree"], found["n_differ"]) == (2, 1)
    assert found["agree"] == pytest.approx(0.7)
    assert found["differ"] == pytest.approx(0.1)
