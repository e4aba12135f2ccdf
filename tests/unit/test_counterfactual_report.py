"""The page about counterfactuals: pictures, figures, sentences; the table in the terminal."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.segmentation import find_boundaries
from sklearn.metrics import jaccard_score

from voxplain.cli.counterfactual_summary import print_evaluation
from voxplain.errors import RecordError
from voxplain.records.counterfactual_evaluation import TABLES, Evaluation, pooled
from voxplain.report.counterfactual_grid import (
    COVER,
    FALSE_ALARM,
    HIT,
    MISS,
    OUTLINE,
    UNJUDGED,
    difference,
    grey,
    grid,
    masked,
    overlap,
    signed_limit,
    threshold,
    zoom_of,
)
from voxplain.report.counterfactual_page import write_counterfactual_report
from voxplain.report.counterfactual_plots import (
    iou_bars,
    iou_curves,
    reliability,
    training_curves,
)
from voxplain.report.counterfactual_tables import (
    overlap_blocks,
    pooled_blocks,
    repair_blocks,
    validity_blocks,
)
from voxplain.report.counterfactual_verdicts import best_generator, verdicts

GENERATORS = {"coin": 0.62, "singla": 0.31}
MAPS = {
    "score_cam": 0.06, "layer_cam:layers=stage1": 0.45, "layer_cam:layers=stage4": 0.04,
    "rise:n=1000:keep=0.1:fill=-1": 0.12, "gradient": 0.2,
}  # fmt: skip
SIZE = 64


def pictures(rng: np.random.Generator, n: int = 8) -> dict[str, np.ndarray]:
    """Bodies with an organ and a bright blob in it; masks that miss more the worse they are."""
    row, column = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    found: dict[str, list[np.ndarray]] = {}

    def put(name: str, array: np.ndarray) -> None:
        found.setdefault(name, []).append(array)

    for _ in range(n):
        body = (row / 0.36) ** 2 + (column / 0.46) ** 2 < 1
        organ = ((row - 0.05) / 0.18) ** 2 + ((column + 0.2) / 0.12) ** 2 < 1
        noise = 0.05 * rng.standard_normal(body.shape)
        clean = np.clip(np.where(body, np.where(organ, 0.1, -0.35), -1) + noise, -1, 1)
        at = rng.uniform([-0.05, -0.25], [0.13, -0.15])
        blob = np.exp(-((row - at[0]) ** 2 + (column - at[1]) ** 2) / (2 * 0.045**2))
        image, truth = np.clip(clean + 0.8 * blob, -1, 1), blob > 0.25
        for name, array in (("image", image), ("clean", clean), ("truth", truth)):
            put(name, array)
        put("organ", organ)
        put("inside", np.ones_like(truth))
        for name, iou in (GENERATORS | MAPS | {"intensity": 0.4}).items():
            shift = (1 - iou) * 0.1
            near = np.exp(-((row - at[0] - shift) ** 2 + (column - at[1]) ** 2) / (2 * 0.045**2))
            spread = near + (1 - iou) * 0.4 * rng.random(near.shape) * body
            put(f"map/{name}", spread)
            put(f"mask/{name}", spread > 0.35)
            if name in GENERATORS:
                repair = image - 0.8 * near * body + (1 - iou) * 0.1 * noise
                put(f"repair/{name}", np.clip(repair, -1, 1))
    arrays = {name: np.stack(values) for name, values in found.items()}
    return {"slice": np.arange(n), **arrays}


def classifiers(classifier: float = 0.99, judge: float = 0.97) -> list[dict[str, Any]]:
    return [
        {
            "by": by, "n_slices": 128, "n_abnormal": 64, "n_patients": 12, "note": "",
            **{
                f"{name}{end}": value + shift
                for name, value in (("auroc", area), ("accuracy", 0.95), ("sensitivity", 0.9),
                                    ("specificity", 0.96))
                for end, shift in (("", 0.0), ("_low", -0.02), ("_high", 0.005))
            },
        }
        for by, area in (("classifier", classifier), ("judge", judge))
    ]  # fmt: skip


def evaluation(
    seed: int = 0, *, judge: float = 0.95, has_truth: bool = True, n_shown: int = 2
) -> Evaluation:
    rng = np.random.default_rng(seed)
    scores = {**GENERATORS, **MAPS, "intensity": 0.4}
    shift = 0.02 * rng.standard_normal(len(scores)) if seed else np.zeros(len(scores))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    rows["classifiers"] = classifiers()
    kinds = {**dict.fromkeys(GENERATORS, "counterfactual"), "intensity": "intensity"}
    for (name, base), own in zip(scores.items(), shift, strict=True):
        iou = float(np.clip(base + own, 0, 1))
        row: dict[str, Any] = {
            "method": name, "kind": kinds.get(name, "attribution"), "n_slices": 64,
            "n_patients": 12, "threshold_tuned": 0.1 if name in GENERATORS else 0.6,
            "threshold_fixed": 0.25 if name in GENERATORS else 0.975,
            "iou_validation": iou, "seconds": 3.2, "n_forward": 1, "n_backward": 0,
            "asked_as": name if name in MAPS else "", "note": "",
        }  # fmt: skip
        for metric, value in (("iou", iou), ("dice", 2 * iou / (1 + iou))):
            for mean, less in (("", 1.0), ("_mean", 0.93)):
                for part, share in (("tuned", 1.0), ("fixed", 0.6)):
                    middle = value * less * share
                    key = f"{metric}{mean}_{part}"
                    row |= {key: middle, f"{key}_low": middle - 0.03, f"{key}_high": middle + 0.03}
        if name == "intensity":
            row |= {key: np.nan for key in row if "fixed" in key}
            row["note"] = "the paper fixes no threshold for it"
        if not has_truth:
            row |= {key: np.nan for key in row if key.startswith(("iou", "dice", "threshold_t"))}
            row["note"] = "no lesion is known in the test slices"
        rows["methods"].append(row)
        if has_truth:
            peak = 0.1 if name in GENERATORS else 0.6
            for part in ("test", "validation"):
                for t in np.linspace(0, 1, 101):
                    value = iou * np.exp(-(((t - peak) / 0.18) ** 2)) if t < 1 else 0.0
                    rows["curves"].append({
                        "method": name, "part": part, "threshold": t, "iou": value,
                        "dice": 2 * value / (1 + value),
                    })  # fmt: skip
            if name != "coin":
                gap = 0.62 - iou
                for metric in ("iou_tuned", "iou_mean_tuned", "dice_tuned"):
                    rows["differences"].append({
                        "method": "coin", "rival": name, "metric": metric, "difference": gap,
                        "low": gap - 0.05, "high": gap + 0.05,
                    })  # fmt: skip
        is_generator = name in GENERATORS
        for i in range(16 if is_generator else 8):
            label = int(i < 8)
            rows["slices"].append({
                "method": name, "slice": i, "case": f"case{i // 2:02d}", "patient": i // 2,
                "index": 40 + i, "label": label, "iou": iou if label else np.nan,
                "dice": 2 * iou / (1 + iou) if label else np.nan,
                "change": 0.02 if is_generator else np.nan,
                "probability_before": 0.98 if label else 0.03,
                "probability_after": 0.04 if is_generator else np.nan,
                "judge_before": 0.95 if label else 0.05,
                "judge_after": 0.08 if is_generator else np.nan,
            })  # fmt: skip
        if is_generator:
            for by, share in (("classifier", 0.984), ("judge", judge)):
                for tau in (0.8, 0.5):
                    rows["validity"].append({
                        "method": name, "by": by, "tau": tau, "n_slices": 128, "n_above": 61,
                        "validity": share, "low": share - 0.04, "high": min(1, share + 0.02),
                        "n_abnormal": 63, "flipped": share, "note": "",
                    })  # fmt: skip
            rows["repairs"].append({
                "method": name, "n_abnormal": 64, "n_normal": 64, "change_inside": 0.24,
                "change_outside": 0.0041, "change_normal": 0.0019, "marked_normal": 0.0008,
                "still_normal": 0.984, "psnr": 34.1, "psnr_inside": 21.3, "psnr_outside": 37.7,
                "psnr_input": 25.2, "psnr_input_inside": 9.4, "n_exact": 0, "ssim": 0.97,
                "fid_normal": 0.42, "fid_pairs": 0.61, "features": "input of head of judge",
                "note": "",
            })  # fmt: skip
    tables = {name: pd.DataFrame(rows[name], columns=list(TABLES[name])) for name in TABLES}
    shown = pictures(np.random.default_rng([seed, 1]), n_shown)
    if not has_truth:
        shown["truth"] = np.zeros_like(shown["truth"])
        del shown["clean"]
    provenance = {
        "created": "2026-11-21T20:00:00+00:00", "seed": seed, "seconds": 142.0,
        "versions": {"python": "3.12", "voxplain": "0.0.0"},
        "config": {"name": "synthetic", "generators": {"coin": {"kind": "coin", "steps": 1500}}},
    }  # fmt: skip
    return Evaluation(tables, shown, provenance)


def logs() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(3)
    step = np.arange(25, 1525, 25)
    fall = np.exp(-step / 400)
    noise = 0.03 * rng.standard_normal((6, len(step)))
    coin = pd.DataFrame({"step": step})
    terms = ("adversarial", "classifier", "identity", "change", "mask", "discriminator")
    for term, own in zip(terms, noise, strict=True):
        coin[term] = fall + own
    coin["val_classifier"] = np.where(step % 250 == 0, fall + 0.1, np.nan)
    coin["val_total"] = np.where(step % 250 == 0, 2 * fall, np.nan)
    coin["seconds"] = 1.5
    classifier = pd.DataFrame({"step": step, "loss": fall, "rate": 1e-3, "seconds": 0.2})
    classifier["auroc"] = np.where(step % 50 == 0, 1 - fall / 2, np.nan)
    return {"classifier": classifier, "coin": coin}


def bins() -> pd.DataFrame:
    edges = np.linspace(0, 1, 11)
    n = np.array([80, 12, 6, 0, 5, 4, 6, 8, 11, 70])
    middle = np.where(n > 0, (edges[1:] + edges[:-1]) / 2, np.nan)
    return pd.DataFrame({
        "low": edges[:-1], "high": edges[1:], "n": n, "mean_probability": middle,
        "share_abnormal": middle**1.2,
    })  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluation(n_shown=8)


@pytest.fixture(scope="module")
def page(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    written = write_counterfactual_report(
        found, path, name="A <b>run</b>", logs=logs(), calibration=bins(), notes=["Blocks & all."]
    )
    assert written == path
    return path.read_text("utf-8")


def test_masks_are_blended_exactly_and_outlined_inside() -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(-1, 1, (9, 7))
    truth = np.zeros((9, 7), bool)
    truth[2:6, 2:6] = True
    mask = np.zeros_like(truth)
    mask[4:8, 3:7] = True
    drawn = masked(picture, mask, truth, 3)
    ground = np.rint((picture + 1) / 2 * 255)
    edge = find_boundaries(truth.repeat(3, 0).repeat(3, 1), mode="inner", connectivity=2)
    assert (drawn[edge] == OUTLINE).all()
    for (r, c), level in np.ndenumerate(ground):
        colour = {(1, 1): HIT, (1, 0): FALSE_ALARM, (0, 1): MISS}.get((mask[r, c], truth[r, c]))
        expected = (
            np.full(3, level)
            if colour is None
            else np.rint(COVER * np.array(colour) + (1 - COVER) * level)
        )
        block = drawn[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].reshape(9, 3)
        inner = block[~edge[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].ravel()]
        assert (inner == expected).all()


def test_a_mask_without_truth_has_its_own_colour() -> None:
    mask = np.eye(4, dtype=bool)
    drawn = masked(-np.ones((4, 4)), mask, None, 1)
    assert (drawn[mask] == np.rint(COVER * np.array(UNJUDGED))).all()
    assert not drawn[~mask].any()


def test_overlap_is_that_of_scikit_learn() -> None:
    a, b = np.random.default_rng(1).random((2, 8, 8)) > 0.4
    assert overlap(a, b) == pytest.approx(jaccard_score(b.ravel(), a.ravel()), abs=1e-15)
    assert np.isnan(overlap(np.zeros((2, 2), bool), np.zeros((2, 2), bool)))


def test_greys_refuse_what_they_cannot_show() -> None:
    assert grey(np.array([[-1.0, 1.0]])).tolist() == [[[0] * 3, [255] * 3]]
    for bad in (1.2, np.nan):
        with pytest.raises(RecordError, match=r"holds values in \[−1, 1\]"):
            grey(np.full((2, 2), bad))


def test_darker_is_blue_and_brighter_orange() -> None:
    before = np.zeros((1, 3))
    pixels = difference(before, np.array([[-0.8, 0.0, 0.8]]), 0.4).astype(int)
    dark, none, bright = pixels[0]
    assert dark[2] > dark[0]
    assert bright[0] > bright[2]
    assert none.tolist() == [20, 24, 29]  # the ground


@pytest.mark.parametrize(("side", "zoom"), [(64, 4), (100, 3), (200, 2), (256, 1), (512, 1)])
def test_small_pictures_are_enlarged(side: int, zoom: int) -> None:
    assert zoom_of((side, side - 1)) == zoom


def test_the_limit_is_the_largest_change(found: Evaluation) -> None:
    image = found.pictures["image"]
    changes = [np.abs(found.pictures[f"repair/{name}"] - image).max() / 2 for name in GENERATORS]
    assert signed_limit(found.pictures) == pytest.approx(max(changes), abs=1e-12)


def test_colours_reach_the_threshold_at_least(found: Evaluation) -> None:
    assert threshold(found.tables["methods"]) == 0.1
    unknown = evaluation(has_truth=False).tables["methods"]
    assert threshold(unknown) == 0.25  # the fixed one
    still = {
        name: found.pictures["image"] if name.startswith("repair/") else array
        for name, array in found.pictures.items()
    }
    assert grid(Evaluation(found.tables, still))["limit"] == "0.1"


def test_notes_of_distances_name_the_heads_of_the_table(found: Evaluation) -> None:
    note = "fid_normal is biased: 4 slices for 8 features; fid_pairs needs 2 slices a side"
    tables = {**found.tables, "repairs": found.tables["repairs"].assign(note=note)}
    text = str(repair_blocks(Evaluation(tables, found.pictures))[-1])
    assert "FID to normal slices is biased: 4 slices" in text
    assert "FID of pairs (paper) needs 2 slices" in text
    assert "fid_" not in text


def test_the_grid_has_a_row_for_each_picture(found: Evaluation) -> None:
    made = grid(found)
    names = [(row["name"], row["what"]) for row in made["rows"]]
    assert names[:5] == [
        ("image", "x"), ("clean", "the image without its anomaly"),
        ("coin", "counterfactual x′"), ("coin", "difference (x′ − x)/2"), ("coin", "mask"),
    ]  # fmt: skip
    assert [name for name, _ in names[8:]] == [
        "layer_cam:layers=stage1", "intensity", "gradient", "rise:n=1000:keep=0.1:fill=-1",
        "score_cam", "layer_cam:layers=stage4",
    ]  # fmt: skip
    assert len(made["heads"]) == 8
    assert made["heads"][3] == {"name": "case01", "text": "slice 43"}
    cell = made["rows"][4]["cells"][2]
    truth, mask = found.pictures["truth"][2], found.pictures["mask/coin"][2]
    value = jaccard_score(truth.ravel(), mask.ravel())
    assert cell["text"] == f"IoU {value:.2f}"
    assert cell["alt"] == f"coin: mask, case01 slice 42, IoU {value:.2f}"
    decoded = Image.open(io.BytesIO(base64.b64decode(cell["uri"].partition(",")[2])))
    pixels = np.asarray(decoded.convert("RGB"))
    expected = masked(found.pictures["image"][2], mask, truth, 4)
    assert (pixels == expected).all()
    assert made["rows"][2]["cells"][0]["text"] == "p 0.04, judge 0.08"
    assert made["rows"][0]["cells"][0]["text"] == "p 0.98, judge 0.95"


def test_an_evaluation_without_pictures_has_an_empty_grid(found: Evaluation) -> None:
    assert grid(Evaluation(found.tables))["rows"] == []


def test_figures_give_their_numbers(found: Evaluation) -> None:
    methods, curves = found.tables["methods"], found.tables["curves"]
    test = curves[curves["part"] == "test"]
    lines, bars = iou_curves(test, methods), iou_bars(methods)
    assert lines is not None
    assert bars is not None
    kept = test[["method", "threshold", "iou"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(lines.table, kept)
    assert [*bars.table["method"][:2]] == ["coin", "layer_cam:layers=stage1"]
    assert bars.table["iou_tuned"].is_monotonic_decreasing
    left = lines.figure.axes[0]
    marks = [line for line in left.lines if line.get_marker() == "o"]
    assert marks[0].get_xdata()[0] == pytest.approx(0.1)  # tuned threshold of coin
    assert marks[1].get_xdata()[0] == pytest.approx(0.25)
    assert marks[0].get_ydata()[0] == pytest.approx(0.62)
    without = methods.assign(iou_tuned=np.nan, iou_fixed=np.nan)
    assert iou_bars(without) is None
    assert iou_curves(test.iloc[:0], methods) is None


def test_a_log_has_a_panel_a_term() -> None:
    log = logs()["coin"]
    made = training_curves(log)
    assert made is not None
    titles = [axes.get_title(loc="left") for axes in made.figure.axes]
    assert titles == [
        "adversarial", "classifier", "identity", "change", "mask", "discriminator", "total",
    ]  # fmt: skip
    assert len(made.figure.axes[1].lines) == 2
    val = made.figure.axes[1].lines[1]
    assert list(val.get_xdata()) == [250, 500, 750, 1000, 1250, 1500]
    pd.testing.assert_frame_equal(made.table, log)
    assert training_curves(log[["step", "seconds"]]) is None
    long = pd.DataFrame({"step": np.arange(1000), "loss": np.arange(1000.0)})
    thin = training_curves(long)
    assert thin is not None
    assert len(thin.table) == 400
    assert thin.table["step"].iloc[[0, -1]].tolist() == [0, 999]


def test_calibration_leaves_empty_bins_out() -> None:
    drawn = reliability(bins())
    assert drawn is not None
    assert len(drawn.figure.axes[0].lines[1].get_xdata()) == 9
    assert len(drawn.table) == 10
    empty = bins().assign(mean_probability=np.nan)
    assert reliability(empty) is None


def test_verdicts_say_repair_and_better(found: Evaluation) -> None:
    first, coin, singla = verdicts(found)
    assert (first["outcome"], first["style"]) == ("better", "passed")
    assert "coin 0.62 (0.59 to 0.65)" in first["text"]
    assert "coin leads layer_cam:layers=stage1 by 0.17 (0.12 to 0.22)" in first["text"]
    assert coin["outcome"] == singla["outcome"] == "repair"
    assert "98.4 % of 61 slices" in coin["text"]
    best = best_generator(found)
    assert best is not None
    assert best["method"] == "coin"


@pytest.mark.parametrize(
    ("psnr", "outcome"), [(25.3, "repair"), (17.2, "redrawn"), (np.nan, "repair")]
)
def test_a_picture_that_is_redrawn_is_no_repair(
    found: Evaluation, psnr: float, outcome: str
) -> None:
    repairs = found.tables["repairs"].copy()
    repairs.loc[repairs["method"] == "singla", "psnr"] = psnr
    _, coin, singla = verdicts(Evaluation({**found.tables, "repairs": repairs}, found.pictures))
    assert (coin["outcome"], singla["outcome"]) == ("repair", outcome)
    assert ("17.2 dB" in singla["text"]) == (outcome == "redrawn")


@pytest.mark.parametrize(
    ("judge", "outcome"),
    [(0.785, "repair"), (0.78, "trick"), (0.1, "trick"), (np.nan, "not judged")],
)
def test_a_judge_that_disagrees_tells_a_trick(judge: float, outcome: str) -> None:
    assert verdicts(evaluation(judge=judge))[1]["outcome"] == outcome


def rated(found: Evaluation, **areas: float) -> Evaluation:
    return Evaluation(
        {**found.tables, "classifiers": pd.DataFrame(classifiers(**areas))}, found.pictures
    )


@pytest.mark.parametrize(("area", "is_judged"), [(0.8, True), (0.79, False), (np.nan, False)])
def test_a_weak_judge_judges_nothing(found: Evaluation, area: float, is_judged: bool) -> None:
    told = verdicts(rated(found, judge=area))
    assert told[-1]["outcome"] == ("repair" if is_judged else "not judged")
    assert len(told) == (3 if is_judged else 4)
    if not is_judged:
        weak = told[1]
        expected = ("weak", "issue") if area == 0.79 else ("not known", "tip")
        assert (weak["outcome"], weak["style"]) == expected
        assert weak["subject"] == "judge"
        assert ("0.79" if area == 0.79 else "AUROC is not known") in told[-1]["text"]


def test_a_weak_classifier_is_named(found: Evaluation) -> None:
    told = verdicts(rated(found, classifier=0.6))
    assert (told[1]["outcome"], told[1]["subject"]) == ("weak", "classifier")
    assert "AUROC 0.60 (0.58 to 0.60), sensitivity 90.0 %" in told[1]["text"]


def many(found: Evaluation, n: int) -> Evaluation:
    """Copy the generator singla, each a little worse."""
    tables = {name: [table] for name, table in found.tables.items()}
    pictures = dict(found.pictures)
    for i in range(n):
        name = f"G{i}"
        for key in ("methods", "validity", "repairs", "slices", "curves"):
            own = found.tables[key]
            own = own[own["method"] == "singla"].assign(method=name)
            if key == "methods":
                own["iou_validation"] -= 0.01 * (i + 1)
            tables[key].append(own)
        for what in ("map", "mask", "repair"):
            pictures[f"{what}/{name}"] = found.pictures[f"{what}/singla"]
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return Evaluation(joined, pictures, found.provenance)


def test_many_generators_are_told_together_and_folded(tmp_path: Path) -> None:
    found = many(evaluation(), 7)
    made = grid(found)
    assert made["more_names"] == ["G4", "G5", "G6"]
    assert [row["name"] for row in made["more"]] == [
        "image", *(name for name in made["more_names"] for _ in range(3))
    ]  # fmt: skip
    shown = [row["name"] for row in made["rows"] if row["what"] == "mask"]
    assert shown[:6] == ["coin", "singla", "G0", "G1", "G2", "G3"]
    assert shown[6:] == [
        "layer_cam:layers=stage1", "intensity", "gradient", "rise:n=1000:keep=0.1:fill=-1",
        "score_cam", "layer_cam:layers=stage4",
    ]  # fmt: skip
    overlaps, repairs = verdicts(found)
    assert "Of the generators coin leads singla" in overlaps["text"]
    assert (repairs["outcome"], repairs["subject"]) == ("repair", "9 generators")
    assert "coin 98.4 %, 95.0 %; singla 98.4 %, 95.0 %; G0" in repairs["text"].replace(
        "\u00a0", " "
    )
    validity = found.tables["validity"]
    is_own = (validity["method"] == "G2") & (validity["by"] == "judge")
    tricked = validity.assign(validity=validity["validity"].where(~is_own, 0.1))
    _, *told = verdicts(Evaluation({**found.tables, "validity": tricked}, found.pictures))
    assert [(one["outcome"], one["subject"]) for one in told] == [
        ("repair", "8 generators"), ("trick", "1 generator"),
    ]  # fmt: skip
    text = write_counterfactual_report(found, tmp_path / "a.html").read_text("utf-8")
    assert "<details><summary>Other generators: G4, G5, G6</summary>" in text


def test_a_generator_that_turns_nothing_fails(found: Evaluation) -> None:
    validity = found.tables["validity"].assign(validity=0.2)
    changed = Evaluation({**found.tables, "validity": validity}, found.pictures)
    assert verdicts(changed)[1]["outcome"] == "fails"
    none = validity.assign(validity=np.nan, note="no slice has a probability above 0.8")
    told = verdicts(Evaluation({**found.tables, "validity": none}))[1]
    assert told["outcome"] == "not known"
    assert "no slice has a probability above 0.8" in told["text"]


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.01, 0.2, "better"), (-0.1, 0.2, "not told apart"), (-0.2, -0.1, "worse"),
     (np.nan, np.nan, "not told apart")],
)  # fmt: skip
@pytest.mark.parametrize("is_turned", [False, True])
def test_leads_follow_the_paired_interval(
    found: Evaluation, low: float, high: float, outcome: str, is_turned: bool
) -> None:
    table = found.tables["differences"].assign(low=low, high=high)
    if is_turned:
        table = table.rename(columns={"method": "rival", "rival": "method"}).assign(
            low=-table["high"], high=-table["low"], difference=-table["difference"]
        )
    first = verdicts(Evaluation({**found.tables, "differences": table}))[0]
    assert first["outcome"] == outcome
    assert "coin leads layer_cam:layers=stage1 by 0.17" in first["text"]


def test_missing_truth_is_told_and_nothing_is_made_up(tmp_path: Path) -> None:
    found = evaluation(has_truth=False)
    text = write_counterfactual_report(found, tmp_path / "a.html").read_text("utf-8")
    assert verdicts(found)[0]["outcome"] == "not known"
    assert "mask where the truth is not known" in text
    assert "found (TP)" not in text
    assert "all methods: no lesion is known in the test slices" in text
    assert "IoU against the threshold" not in text
    assert "Overlap at" not in text
    assert "Differences" not in text
    assert "Nearness to the clean image" in text  # of another source


def test_tables_hold_the_numbers(found: Evaluation) -> None:
    tuned, fixed, differences, why = overlap_blocks(found)
    heads = [head for head, _ in tuned["table"]["heads"]]
    assert heads == [
        "method", "kind", "threshold", "IoU, pooled", "IoU, per slice", "Dice, pooled",
        "Dice, per slice",
    ]  # fmt: skip
    first = tuned["table"]["rows"][0]
    assert [cell[0] for cell in first[:4]] == ["coin", "counterfactual", "0.100", "0.620"]
    assert first[3][1] == "0.590 to 0.650"
    last = fixed["table"]["rows"][-1]
    assert last[0][0] == "intensity"
    assert last[3][0] == "–"
    assert len(differences["table"]["rows"]) == len(MAPS) + 2
    assert differences["table"]["rows"][0][2][:2] == ("0.310", "0.260 to 0.360")
    assert why["words"] == "intensity: the paper fixes no threshold for it."
    quality, validity = validity_blocks(found)
    heads = [head for head, _ in quality["table"]["heads"]]
    assert heads == [
        "network", "AUROC", "accuracy", "sensitivity", "specificity", "slices", "abnormal",
        "patients",
    ]  # fmt: skip
    assert [row[1][:2] for row in quality["table"]["rows"]] == [
        ("0.990", "0.970 to 0.995"), ("0.970", "0.950 to 0.975"),
    ]  # fmt: skip
    assert len(validity["table"]["rows"]) == 4
    row = dict(zip([h for h, _ in validity["table"]["heads"]], validity["table"]["rows"][0],
                   strict=True))  # fmt: skip
    assert row["CV(τ), classifier"][0] == "98.4 %"
    assert row["CV(τ), judge"][0] == "95.0 %"


def test_the_page_holds_everything_and_reaches_for_nothing(page: str) -> None:
    assert "A &lt;b&gt;run&lt;/b&gt;" in page
    assert "Blocks &amp; all." in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert len(re.findall(r"<img[^>]*alt=\"[^\"]+\"", page)) == page.count("<img")
    assert page.count("<details><summary>The same as a table") == 5
    assert "kind: coin" in page  # the configuration
    assert 'id="provenance"' in page
    assert "Over all runs" not in page
    assert len(page) < 2_000_000


def test_several_runs_are_pooled(tmp_path: Path) -> None:
    runs = {f"seed{seed}": evaluation(seed) for seed in (1, 2, 3)}
    text = write_counterfactual_report(runs, tmp_path / "a.html").read_text("utf-8")
    values = [float(one.tables["methods"]["iou_tuned"].iloc[0]) for one in runs.values()]
    assert "Over all runs" in text
    blocks = pooled_blocks(pooled(runs))
    assert [block["title"] for block in blocks] == [
        "IoU, pooled, tuned", "Validity", "Other overlaps",
    ]  # fmt: skip
    coin = blocks[0]["table"]["rows"][0]
    assert [cell[0] for cell in coin[:2]] == ["coin", "counterfactual"]
    assert coin[2][:2] == (f"{np.mean(values):.3f}", f"{min(values):.3f} to {max(values):.3f}")
    assert coin[3][2] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert {row[1][0] for row in blocks[1]["table"]["rows"]} == {
        "CV(0.8), classifier", "CV(0.8), judge", "CV(0.5), classifier", "CV(0.5), judge",
    }  # fmt: skip
    assert f"{np.mean(values):.3f}" in text
    assert f"seed2={values[1]:.4g}" in text
    assert text.count('class="target" data-target="2"') == 6
    one = write_counterfactual_report(runs["seed1"], tmp_path / "b.html", seeds=pooled(runs))
    assert "Over all runs" in one.read_text("utf-8")


def test_no_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="needs an evaluation"):
        write_counterfactual_report({}, tmp_path / "a.html")


def test_the_terminal_shows_every_method(
    found: Evaluation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_evaluation(found, Path("run/evaluation"))
    told = capsys.readouterr().out
    assert "0.62 [0.59, 0.65]" in told
    assert all(name in told for name in (*GENERATORS, *MAPS, "intensity"))
    assert "98.4 %" in told
    assert told.index("coin ") < told.index("score_cam")
    assert "repair: coin: " in told
    assert told.rstrip().endswith("run/evaluation")
    print_evaluation(found, Path("run"), quiet=True)
    assert not capsys.readouterr().out


def test_the_report_does_not_load_torch() -> None:
    code = (
        "import sys, voxplain.report.counterfactual_page\nraise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
