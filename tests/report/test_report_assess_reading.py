"""How the page of an assessment is read: marks, scales, what p can be, codes, one's own words."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from tests.report.assessments import METHODS, ORDER, TRIVIAL, assessment

from voxplain.assess.checks_thresholds import DEFAULTS
from voxplain.assess.map_peak import METRIC as PEAK
from voxplain.assess.random_entropy import ENTROPY_RISE
from voxplain.assess.similarity import METRICS
from voxplain.records.assessment import ORIGINAL, Assessment
from voxplain.records.finding import CODES
from voxplain.report import write_assess_report
from voxplain.report.assess_cascades import cascade_curves, output_curves, reading
from voxplain.report.assess_comparisons import comparison_groups, comparison_rows, least_p
from voxplain.report.assess_grids import Grids
from voxplain.report.assess_page import _model
from voxplain.report.assess_panels import plain_ticks
from voxplain.report.assess_planes import Ground, top
from voxplain.report.assess_plots import family_boxes
from voxplain.report.assess_summary import N_COLUMNS, summary_tables
from voxplain.report.assess_tables import HIGH_BASELINES, Tables
from voxplain.report.assess_verdicts import ABOUT, about_codes
from voxplain.report.drawing import blank
from voxplain.study.lesion_tests import holm

CHECKS = Path(__file__).parents[2] / "docs" / "checks"


@pytest.fixture(scope="module")
def made() -> Assessment:
    return assessment(models=("net",), targets=("liver",))


@pytest.fixture(scope="module")
def bare() -> Assessment:
    return assessment(models=("net",), targets=("liver",), n_steps=0, n_pictures=0)


@pytest.fixture(scope="module")
def tables(made: Assessment) -> Tables:
    return Tables(made)


@pytest.fixture(scope="module")
def page(made: Assessment, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_assess_report(made, path).read_text("utf-8")


def section(source: str, name: str) -> str:
    start = source.index(f'<section id="{name}">')
    return source[start : source.index("</section>", start)]


def with_mean(made: Assessment, method: str, metric: str, mean: float) -> Assessment:
    summary = made.summary.copy()
    chosen = (summary["method"] == method) & (summary["metric"] == metric)
    summary.loc[chosen & (summary["stage"] == ORIGINAL), "mean"] = mean
    return dataclasses.replace(made, summary=summary)


def cells_of(made: Assessment, family: str, metric: str) -> dict[str, dict[str, object]]:
    for table in summary_tables(Tables(made), "net"):
        heads = [head["text"].split(" ")[0] for head in table["heads"]]
        if table["family"] == family and metric in heads:
            at = heads.index(metric)
            rows = [*table["methods"], *table["trivial"]]
            return {row["label"]: row["cells"][at] for row in rows if row["cells"][at]}
    raise AssertionError(metric)


@pytest.mark.parametrize(
    ("metric", "family", "beats", "loses"),
    [("auroc", "utility", 2.0, -1.0), ("infidelity", "faithfulness", -1.0, 2.0)],
)
def test_the_best_method_is_starred_unless_a_trivial_map_is_better(
    bare: Assessment, tmp_path: Path, metric: str, family: str, beats: float, loses: float
) -> None:
    made = bare
    for rival in TRIVIAL:
        made = with_mean(made, rival, metric, loses)
    best = [cell for cell in cells_of(made, family, metric).values() if cell["is_best"]]
    assert [cell["beaten_by"] for cell in best] == [""]
    other = with_mean(made, TRIVIAL[1], metric, beats)
    best = [cell for cell in cells_of(other, family, metric).values() if cell["is_best"]]
    assert [cell["beaten_by"] for cell in best] == ["edges"]
    source = section(
        write_assess_report(other, tmp_path / "report.html").read_text("utf-8"), "summary"
    )
    assert 'class="beaten" title="the best of the methods, but the trivial map edges is' in source


def test_a_given_map_is_no_trivial_one(bare: Assessment) -> None:
    assert DEFAULTS.high_baselines == HIGH_BASELINES
    made = bare
    for rival in TRIVIAL:
        made = with_mean(made, rival, "auroc", -1.0)
    summary = made.summary.replace({"method": {TRIVIAL[1]: "baseline:given:reader"}})
    scores = made.scores.replace({"method": {TRIVIAL[1]: "baseline:given:reader"}})
    other = with_mean(
        dataclasses.replace(made, summary=summary, scores=scores), "baseline:given:reader",
        "auroc", 2.0,
    )  # fmt: skip
    best = [cell for cell in cells_of(other, "utility", "auroc").values() if cell["is_best"]]
    assert [cell["beaten_by"] for cell in best] == [""]


def test_many_metrics_are_told_in_several_tables(bare: Assessment) -> None:
    (one,) = (metric for metric in bare.metrics if metric.name == "auroc")
    own = bare.summary[bare.summary["metric"] == "auroc"]
    more = [dataclasses.replace(one, name=f"more_{i}") for i in range(7)]
    summary = [bare.summary, *(own.assign(metric=metric.name) for metric in more)]
    other = dataclasses.replace(
        bare, metrics=(*bare.metrics, *more), summary=pd.concat(summary, ignore_index=True)
    )
    found = [t for t in summary_tables(Tables(other), "net") if t["family"] == "utility"]
    assert [len(table["heads"]) for table in found] == [6, 6]
    assert [bool(table["question"]) for table in found] == [True, False]
    heads = [head["text"] for table in found for head in table["heads"]]
    assert len(set(heads)) == 12 > N_COLUMNS


def test_a_figure_is_read_by_the_direction_of_its_metric(made: Assessment) -> None:
    assert {m.direction for m in METRICS if m.name != "entropy_rise"} == {"none"}
    tables = Tables(dataclasses.replace(made, metrics=(*made.metrics, ENTROPY_RISE)))
    assert "should fall to" in reading(tables, "ssim")
    rise = reading(tables, "entropy_rise")
    assert "higher is better" in rise
    assert "should rise" in rise
    assert "fall" not in rise
    lower = dataclasses.replace(ENTROPY_RISE, name="drop", direction="lower")
    tables = Tables(dataclasses.replace(made, metrics=(*made.metrics, lower)))
    assert "It should fall" in reading(tables, "drop")


def test_the_output_is_drawn_once_and_apart_from_the_maps(made: Assessment, tables: Tables) -> None:
    drawing = output_curves(tables, "net", ORDER)
    assert drawing is not None
    assert set(drawing.table["metric"]) == {"target_change", "prediction_change"}
    own = made.scores.query(f"stage == '{ORDER}:2' and metric == 'prediction_change'")
    row = drawing.table.query("metric == 'prediction_change' and step == 2")
    assert row["mean"].item() == pytest.approx(own["value"].mean())
    (cascade,) = _model(tables, Grids(tables), "net", 0)["cascades"]
    titles = [figure["title"] for figure in cascade["figures"]]
    assert titles == ["top down, ssim", "top down, spearman", "top down, the model’s output"]
    hollow = made.scores[(made.scores["method"] != "")]
    assert output_curves(Tables(dataclasses.replace(made, scores=hollow)), "net", ORDER) is None


def test_a_panel_without_dashes_says_why(tables: Tables) -> None:
    axes = cascade_curves(tables, "net", ORDER, "ssim").figure.axes
    told = {one.get_title("left"): [text.get_text() for text in one.texts] for one in axes}
    assert told == {
        **{method: [] for method in METHODS},
        "edges": ["random pairs: of methods only"],
    }


def test_a_method_without_a_value_has_no_row(made: Assessment) -> None:
    known = (made.scores["metric"] != "auroc") | (made.scores["method"] == METHODS[1])
    other = dataclasses.replace(made, scores=made.scores[known])
    drawing = family_boxes(Tables(other), "net", "utility")
    assert drawing is not None
    rows = {
        axes.get_title("left"): [
            text.get_text() for text in axes.get_yticklabels() if text.get_visible()
        ]
        for axes in drawing.figure.axes
    }
    labels = [*METHODS, "random", "edges"]
    assert rows["average precision ↑"] == labels
    assert rows["auroc ↑"] == [METHODS[1]]
    boxes = [axes.get_position() for axes in drawing.figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
    assert len(drawing.figure.axes) == 4


@pytest.mark.parametrize("values", [[1e6, 2.2e7], [1e-7, 4e-6], [0.2, 0.4], [1000.1, 1000.2], [0]])
def test_no_power_of_ten_stands_apart(values: list[float]) -> None:
    axes = blank(4, 3).subplots()
    axes.plot(values, range(len(values)))
    plain_ticks(axes.xaxis, values)
    axes.figure.canvas.draw()
    assert axes.xaxis.get_offset_text().get_text() == ""
    texts = [text.get_text() for text in axes.xaxis.get_majorticklabels()]
    assert len(set(texts)) == len(texts)
    if values[0] == 1e6:
        assert "10⁷" in " ".join(texts)


def test_the_unit_of_the_peak_is_told_in_words(made: Assessment) -> None:
    tables = Tables(dataclasses.replace(made, metrics=(PEAK,)))
    assert tables.head("map_peak") == "map peak, in the map's unit"


def test_smallest_p_is_that_of_the_test_and_of_holm() -> None:
    for n in (6, 9, 12):
        for m in (1, 8, 10):
            p, p_holm, needed = least_p(n, m)
            assert p == pytest.approx(stats.wilcoxon(np.arange(1.0, n + 1)).pvalue, rel=1e-12)
            assert p_holm == pytest.approx(holm(np.full(m, p)).min(), rel=1e-12)
            assert least_p(needed, m)[1] <= 0.05 < least_p(needed - 1, m)[1]
    assert least_p(6, 10)[1:] == (0.3125, 9)


def test_comparisons_say_what_p_can_be(made: Assessment, tables: Tables, page: str) -> None:
    rows, _ = comparison_rows(tables, "net")
    groups = comparison_groups(rows)
    assert [row for group in groups for row in group["rows"]] == rows
    (auroc,) = (group for group in groups if group["metric"] == "auroc ↑")
    assert auroc["power"].startswith("6 patients and 6 comparisons: the smallest p")
    assert "corrected one 0.19" in auroc["power"]
    assert "that needs 8 patients" in auroc["power"]
    assert sum(int(n) for n in re.findall(r"(\d+) ", auroc["counts"])) == 6
    shown = section(page, "comparisons")
    assert shown.count("<details") == len(groups) == made.comparisons["metric"].nunique()
    assert all(unescape(group["power"]) in unescape(shown) for group in groups)
    assert "rolls" not in shown
    assert [group["power"] for group in comparison_groups([{**rows[0], "p": np.nan}])] == [""]


def pixels_of(cell: dict[str, object] | None) -> np.ndarray:
    assert cell is not None
    data = str(cell["uri"]).partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)


def test_a_plane_is_scaled_to_its_own_values() -> None:
    faint = np.zeros((40, 40), np.uint8)
    faint[10:30, 10:30] = 20
    faint[0, 0] = 255
    assert top(faint) == 20
    assert top(np.where(np.arange(1000) < 3, 7, 0).astype(np.uint8)) == 7
    assert top(np.zeros((4, 4), np.uint8)) == 0
    full = np.where(faint == 20, 255, faint).astype(np.uint8)
    ground = Ground(np.full((40, 40), 90, np.uint8), None, 80)
    pale, strong = (pixels_of(ground.cell(one, "", "")) for one in (faint, full))
    assert pale[40, 40] == pytest.approx(strong[40, 40], abs=3)
    assert np.abs(pale[40, 40] - pale[70, 70]).max() > 60


def test_a_number_of_the_volume_says_so_and_a_coarse_plane_too(made: Assessment) -> None:
    cells = Grids(Tables(made)).of_cases("net")[0]["rows"][0]["cells"]
    assert cells[1]["text"].endswith(" (volume)")
    flat = dataclasses.replace(made, pictures=made.pictures.assign(axis=-1))
    cells = Grids(Tables(flat)).of_cases("net")[0]["rows"][0]["cells"]
    assert re.fullmatch(r"[\d.]+", cells[1]["text"])
    dim = {name: (pixels // 50 if pixels.max() else pixels) for name, pixels in made.planes.items()}
    cells = Grids(Tables(dataclasses.replace(made, planes=dim))).of_cases("net")[0]["rows"][0]
    assert cells["cells"][1]["text"].endswith("(volume) coarse: 3 shades")
    none = {name: 0 * pixels for name, pixels in made.planes.items()}
    cells = Grids(Tables(dataclasses.replace(made, planes=none))).of_cases("net")[0]["rows"][0]
    assert cells["cells"][1]["text"].endswith("nothing in this plane")


def test_randomised_maps_are_of_the_case_of_median_dice() -> None:
    made = assessment(
        models=("net",), targets=("liver",), cases=("a", "b", "c", "d", "e"), n_pictures=4
    )
    dice = {"a": 0.9, "b": 0.1, "c": 0.6, "d": 0.75, "e": 0.7}
    scores = made.scores.copy()
    own = scores["metric"] == "model_dice"
    scores.loc[own, "value"] = scores.loc[own, "case"].map(dice)
    other = dataclasses.replace(made, scores=scores)
    (grid,) = Grids(Tables(other)).of_cascades("net")
    assert (grid["case"], grid["dice"]) == ("d", "0.75")  # e, the median, has no picture
    (grid,) = Grids(Tables(dataclasses.replace(made, scores=scores[~own]))).of_cascades("net")
    assert (grid["case"], grid["dice"]) == ("a", "")


def test_every_code_is_told_as_its_page_tells_it(tables: Tables, page: str) -> None:
    assert list(ABOUT) == [code for code in CODES if code.startswith("VX2")]
    for code, (threshold, advice) in ABOUT.items():
        text = (CHECKS / f"{code.lower()}.md").read_text("utf-8")
        assert text.splitlines()[0] == f"# {code}: {CODES[code].title}"
        section_of = text[text.index("## Threshold") : text.index("## What to do")]
        for figure in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", threshold):
            assert figure in section_of
        assert advice.endswith(".")
    told = about_codes(tables)
    assert [one["code"] for one in told] == list(ABOUT)
    for one in told:
        assert f'id="code-{one["code"].lower()}"' in page
        assert f'href="#code-{one["code"].lower()}"' in page
    heads = re.findall(r'<th scope="row" title="(VX2\d\d: [^"]+)"', section(page, "verdicts"))
    assert len(heads) == len(ABOUT)
    for head in heads:
        code = head[:5]
        assert unescape(head) == f"{code}: {CODES[code].title}. {' '.join(ABOUT[code])}"


def test_limits_on_the_page_are_those_of_the_checks() -> None:
    for code, limit in {
        "VX203": DEFAULTS.stability, "VX204": DEFAULTS.energy_in_body,
        "VX206": DEFAULTS.fill_agreement, "VX207": DEFAULTS.n_patients,
        "VX208": DEFAULTS.leakage, "VX210": DEFAULTS.completeness_gap,
    }.items():  # fmt: skip
        assert re.search(rf"(?<![\d.]){re.escape(str(limit))}(?![\d])", ABOUT[code][0]), code
    assert f"{DEFAULTS.average_sensitivity:g}" in ABOUT["VX203"][0]
    assert DEFAULTS.flagged_share == 1 / 20
