"""``voxplain assess``: cases of a manifest, presets, boxes, refusals, a page that is made again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.classifier_cards import write_card

from voxplain.cli.assess_job import KEPT
from voxplain.cli.assess_progress import PartLines
from voxplain.records.assessment import PICTURES, SCORES, STAGES, SUMMARY, Assessment
from voxplain.space import write_nifti
from voxplain.testing import phantoms

SHAPE = (7, 8, 9)
QUICK = ("--runs", "4", "--steps", "2", "--copies", "1", "--stages", "1", "--quiet")
TABLES = ("scores", "summary", "comparisons", "stages", "pictures")


@pytest.fixture
def cohort(write_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, three cases of two patients with labels, two of them for testing."""
    write_model(tmp_path / "model")
    grid = phantoms.oblique_grid(SHAPE, (0.9, 1.1, 1.4), 3)
    rng = np.random.default_rng(0)
    rows = ["case,image,label,patient,split"]
    for i, split in enumerate(("test", "train", "test")):
        write_nifti(tmp_path / f"c{i}.nii.gz", rng.normal(size=(1, *SHAPE)), grid, np.float32)
        labels = rng.integers(0, 3, (1, *SHAPE)).astype(np.uint8)
        write_nifti(tmp_path / f"c{i}_labels.nii.gz", labels, grid)
        rows.append(f"c{i},c{i}.nii.gz,c{i}_labels.nii.gz,secret_{i},{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    names = {"0": "background", "1": "liver", "2": "spleen"}
    (tmp_path / "labels.json").write_text(json.dumps(names))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(voxplain, *more: str):
    return voxplain("assess", "--model", "model", "--data", "manifest.csv", *more)


def test_tables_page_and_verdicts(voxplain, cohort: Path) -> None:
    done = ask(voxplain, "--methods", "gradient,shapley", *QUICK[:-1])
    assert done.exit_code == 0, done.output
    place = cohort / "voxplain-assess"
    tables = {f"{name}.{kind}" for name in TABLES for kind in ("csv", "parquet")}
    found = {file.name for file in place.iterdir()}
    assert found == {*tables, "planes.npz", "provenance.json", "report.html"}
    scores = pd.read_parquet(place / "scores.parquet")
    assert tuple(scores.columns) == SCORES
    for name, columns in {"summary": SUMMARY, "stages": STAGES, "pictures": PICTURES}.items():
        assert tuple(pd.read_csv(place / f"{name}.csv").columns) == columns
    assert set(scores["case"]) == {"c0", "c2"}  # the split test
    assert set(scores["target"]) == {"liver", "spleen", ""}
    baselines = {"random", "edges", "intensity", "center", "prediction"}
    assert set(scores["method"]) == {
        "", "gradient", "shapley", *(f"baseline:{name}" for name in baselines)
    }  # fmt: skip
    assert "tiny · gradient" in done.stdout
    assert "VX207 too few patients to say: 2 of 2 rows" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert "secret" not in (place / "report.html").read_text()


def test_the_page_is_made_again_without_an_image(voxplain, cohort: Path) -> None:
    done = ask(voxplain, "--methods", "gradient", "--metrics", "complexity", "--no-report", *QUICK)
    assert done.exit_code == 0, done.output
    page = cohort / "voxplain-assess" / "report.html"
    assert not page.exists()
    assert voxplain("report", "voxplain-assess").exit_code == 0
    assert "effective complexity" in page.read_text()


def test_a_dry_run_tells_what_sharing_saves_and_writes_nothing(voxplain, cohort: Path) -> None:
    before = sorted(cohort.iterdir())
    methods = "gradient,shapley:players=cubes:8:samples=32"
    done = ask(voxplain, "--methods", methods, "--dry-run", *QUICK)
    assert done.exit_code == 0, done.output
    assert sorted(cohort.iterdir()) == before
    assert "serve 14 maps" in done.stdout  # two methods, five trivial maps, two targets
    assert "2 cases like the first: at most" in done.stdout  # of curves the most
    assert " s on this device" in done.stdout


def test_a_dry_run_without_curves_tells_the_passes(voxplain, cohort: Path) -> None:
    words = ("--methods", "gradient", "--metrics", "randomisation", "--n-cases", "1", *QUICK[:-1])
    told = ask(voxplain, *words, "--dry-run")
    assert told.exit_code == 0, told.output
    n = int(re.search(r"1 case: ([\d ]+) passes", told.stdout)[1].replace(" ", ""))
    assert ask(voxplain, *words).exit_code == 0
    cost = Assessment.load("voxplain-assess").provenance.cost
    assert cost.n_forward + cost.n_backward == n


def test_a_preset_that_does_not_fit_is_named_with_a_line_to_write(voxplain, cohort: Path) -> None:
    methods = "gradient,shapley:players=cubes:64:samples=8:exact=2"
    words = ("--methods", methods, "--metrics", "complexity", *QUICK)
    for done in (ask(voxplain, *words, "--dry-run"), ask(voxplain, *words)):
        assert done.exit_code == 2
        assert "method shapley: a game has" in done.output
        assert "leave it out: --methods gradient\n" in done.output
        line = re.search(r"write --methods (\S+),", done.output)[1]
        assert line.startswith("gradient,shapley:players=cubes:64:")
    fitting = ask(voxplain, "--methods", line, "--metrics", "complexity", *QUICK)
    assert fitting.exit_code == 0, fitting.output


def test_a_finished_result_is_kept(voxplain, cohort: Path) -> None:
    light = ("--methods", "gradient", "--metrics", "complexity", *QUICK[:-1])
    assert ask(voxplain, *light, "--no-report").exit_code == 0
    place = cohort / "voxplain-assess"
    first = (place / "provenance.json").read_bytes()
    again = ask(voxplain, *light)
    assert again.exit_code == 0, again.output
    assert "already done, the page was written again; --restart to measure again" in again.stdout
    assert (place / "report.html").is_file()
    other = ask(voxplain, *light, "--seed", "1")
    assert other.exit_code == 2
    assert "finished assessment with another seed; give another --out, or --restart" in other.output
    labels = cohort / "c0_labels.nii.gz"
    labels.write_bytes(labels.read_bytes())  # another time of the file
    os.utime(labels, (1, 1))
    changed = ask(voxplain, *light)
    assert changed.exit_code == 2
    assert "state of the cases' files" in changed.output
    assert (place / "provenance.json").read_bytes() == first
    anew = ask(voxplain, *light, "--seed", "1", "--restart")
    assert anew.exit_code == 0, anew.output
    assert Assessment.load(place).provenance.seed == 1


def test_a_damaged_result_is_not_taken_for_finished(voxplain, cohort: Path) -> None:
    light = ("--methods", "gradient", "--metrics", "complexity", "--no-report", *QUICK)
    assert ask(voxplain, *light).exit_code == 0
    with (cohort / "voxplain-assess" / "scores.csv").open("a") as stream:
        stream.write("more\n")
    done = ask(voxplain, *light)
    assert done.exit_code == 2
    assert "was changed since it was saved; give another --out, or --restart" in done.output
    assert ask(voxplain, *light, "--restart").exit_code == 0


def test_ctrl_c_tells_that_parts_are_kept(
    voxplain, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = ("--methods", "gradient", "--metrics", "complexity", "--no-report", *QUICK[:-1])
    with monkeypatch.context() as patch:

        def stop(self: PartLines, n_finished: int, n_parts: int) -> None:
            if n_finished:
                raise KeyboardInterrupt

        patch.setattr(PartLines, "__call__", stop)
        done = ask(voxplain, *light)
    assert done.exit_code == 2
    assert done.stderr == f"voxplain: interrupted; {KEPT}\n"
    page = voxplain("report", "voxplain-assess")
    assert page.exit_code == 2
    assert "an unfinished run and no result yet" in page.stderr
    assert "(voxplain assess …) goes on" in page.stderr
    again = ask(voxplain, *light)
    assert again.exit_code == 0, again.output
    assert "going on: 1 of 2 parts were finished" in again.stderr


def test_average_mask_needs_the_split_train(voxplain, cohort: Path) -> None:
    manifest = cohort / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train", ",validation"))
    done = ask(voxplain, "--baseline", "average_mask", *QUICK)
    assert done.exit_code == 2
    assert "the data has no such case" in done.output


@pytest.mark.parametrize("is_quiet", [False, True])
def test_plain_lines_without_a_terminal(
    is_quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 20.0, 31.0, 59.0, 70.0])
    monkeypatch.setattr("voxplain.cli.assess_progress.time.monotonic", lambda: next(times))
    lines = PartLines(is_quiet=is_quiet)
    for n in range(2, 7):  # the first ones were finished before
        lines(n, 9)
    wanted = [
        "going on: 2 of 9 parts were finished", "4 of 9 parts finished", "6 of 9 parts finished"
    ]  # fmt: skip
    assert capsys.readouterr().err.splitlines() == ([] if is_quiet else wanted)


def test_agg2exp_names_its_methods_and_its_own_faithfulness(voxplain, cohort: Path) -> None:
    done = ask(voxplain, "--preset", "agg2exp", "--methods", "agg2exp-gradient", *QUICK)
    assert done.exit_code == 0, done.output
    metrics = set(pd.read_csv("voxplain-assess/summary.csv")["metric"])
    assert {"faithfulness_correlation_agg2exp", "average_sensitivity_agg2exp"} <= metrics
    assert "average_precision" not in metrics


def test_classifiers_with_boxes(voxplain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_card(tmp_path / f"model_{seed}", seed=seed, size=[20, 18])
    rng = np.random.default_rng(1)
    for i in range(2):
        np.save(tmp_path / f"x{i}.npy", rng.random((20, 18)).astype(np.float32))
    rows = "case,image\n" + "".join(f"x{i},x{i}.npy\n" for i in range(2))
    (tmp_path / "list.csv").write_text(rows)
    (tmp_path / "boxes.csv").write_text(
        "case,target,i0,j0,i1,j1\nx0,pneumonia,2,3,8,9\nx1,pneumonia,0,0,4,4\n"
    )
    done = voxplain(
        "assess", "--model", "model_0", "--model", "model_1", "--data", "list.csv",
        "--boxes", "boxes.csv", "--preset", "arun2021", "--methods", "arun-gradient",
        *QUICK,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = Assessment.load("voxplain-assess")
    scores = result.scores
    found = scores[scores["metric"] == "prevalence"].set_index(["case", "method"])["value"]
    assert set(found.xs("x0")) == {36 / 360}
    assert set(scores["stage"]) >= {"original", "top_down:1", "repeatability", "random pairs"}
    assert {"legacy_auprc", "legacy_ssim"} <= set(scores["metric"])
    assert set(scores["target"]) == {"predicted", ""}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metrics", "faithfullness"), "faithfulness"),
        (("--methods", "gradient,gradient"), "given twice"),
        (("--split", "validation"), "no case of the split 'validation'"),
        (("--metrics", "average_precision"), "a metric of the group utility; write --metrics"),
        (("--baseline", "edge"), "--baseline: no trivial map 'edge'; did you mean 'edges'? Known:"),
        (("--order", "upside"), "--order: no order 'upside'. Known:"),
        (("--target", "spleen"), "'spleen' is not a target; did you mean class:spleen?"),
        (("--baseline", "given:u_{case}.nii"), "not there: u_c0.nii, u_c2.nii"),
        (("--baseline", "given:{case}_{target}.nii"), "c2_liver.nii, c2_spleen.nii"),
        (("--model", "model"), "two models are called model"),
        (("--baseline", "average_mask"), "training cases"),
    ],
)
def test_refusals(voxplain, cohort: Path, arguments: tuple[str, ...], words: str) -> None:
    if "average_mask" in arguments:  # the training case is a test case
        manifest = cohort / "manifest.csv"
        manifest.write_text(manifest.read_text().replace("secret_1,train", "secret_0,train"))
    done = ask(voxplain, *arguments, *QUICK)
    assert done.exit_code == 2, done.output
    assert words in done.output.replace("\n", " ")
    assert "secret" not in done.output


def test_another_seed_in_an_unfinished_folder(voxplain, cohort: Path) -> None:
    (cohort / "c2.nii.gz").write_bytes(b"not an image")
    light = ("--methods", "gradient", "--metrics", "complexity", *QUICK)
    first = ask(voxplain, *light)
    assert first.exit_code == 2
    assert "c2" in first.output
    told = first.output.replace("\n", " ")
    assert "finished parts are kept: once the case can be read, the same command goes on" in told
    assert "voxplain data check --full" in told
    assert len(list((cohort / "voxplain-assess" / "unfinished").glob("*.json"))) == 2
    other = ask(voxplain, *light, "--seed", "1")
    assert other.exit_code == 2
    assert "--restart" in other.output
    data = np.random.default_rng(5).normal(size=(1, *SHAPE))
    grid = phantoms.oblique_grid(SHAPE, (0.9, 1.1, 1.4), 3)
    write_nifti(cohort / "c2.nii.gz", data, grid, np.float32)
    assert ask(voxplain, *light).exit_code == 0
    assert not (cohort / "voxplain-assess" / "unfinished").exists()
