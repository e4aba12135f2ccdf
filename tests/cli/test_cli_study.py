"""``voxplain study`` from its options to its page; a broken case, a retry, a table in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file

from voxplain.space import write_nifti
from voxplain.study.store import Store
from voxplain.testing import phantoms

SHAPE = (7, 8, 9)
N = 6


@pytest.fixture
def cohort(write_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and six labelled cases of five patients, with metadata and some masks."""
    write_model(tmp_path / "model")
    grid = phantoms.oblique_grid(SHAPE, (0.9, 1.1, 1.4), 3)
    rng = np.random.default_rng(0)
    rows = ["case,image,label,patient,sex,age"]
    for i in range(N):
        write_nifti(tmp_path / f"c{i}.nii.gz", rng.normal(size=(1, *SHAPE)), grid, np.float32)
        labels = rng.integers(0, 3, (1, *SHAPE)).astype(np.uint8)
        write_nifti(tmp_path / f"c{i}_labels.nii.gz", labels, grid)
        if i % 2:
            mask = (rng.random((1, *SHAPE)) > 0.5).astype(np.uint8)
            write_nifti(tmp_path / f"c{i}_effusion.nii.gz", mask, grid)
        sex = "FM"[i % 2] if i else ""
        rows.append(f"c{i},c{i}.nii.gz,c{i}_labels.nii.gz,secret_{min(i, 4)},{sex},{30 + i}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    names = {"0": "background", "1": "liver", "2": "spleen"}
    (tmp_path / "labels.json").write_text(json.dumps(names))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(voxplain, *more: str, out: str = "study"):
    words = ("--model", "tiny=model", "--data", "manifest.csv", "--methods", "gradient")
    return voxplain("study", "run", *words, "--out", out, *more)


def test_run_status_and_report(voxplain, cohort: Path) -> None:
    done = run(voxplain, "--mask", "effusion=c{case}_effusion.nii.gz".replace("c{", "{"))
    assert done.exit_code == 0, done.output
    assert "6 of 6 done, 0 failed" in done.stdout
    told = voxplain("study", "status", "study").stdout
    assert "6 cases" in told
    assert "gradient" in told

    table = Store("study").table("tiny", "gradient")
    assert table.extra_regions == ("effusion",)
    effusion = table.of_target("liver")["effusion"]
    assert (effusion == 0).tolist() == [True, False] * 3  # without a file: empty
    shares = table.of_target("liver", parts_only=True)
    assert np.allclose(shares.sum(axis=1), 1)

    done = voxplain("study", "report", "study")
    assert done.exit_code == 0, done.output
    files = {file.name for file in (cohort / "study" / "report").iterdir()}
    assert {"report.html", "importance.csv", "contextual.csv", "provenance.json"} <= files
    page = (cohort / "study" / "report" / "report.html").read_text("utf-8")
    assert "what the model relies on" in page
    for text in (page, done.output, told):
        assert "secret" not in text
        assert str(cohort) not in text
    importance = pd.read_csv("study/report/importance.csv")
    mean = shares.groupby(Store("study").cases()["patient"]).mean().mean()  # patients count once
    own = importance[importance["target"] == "liver"].set_index("region")["mean"]
    assert np.allclose(own[mean.index], mean)


def test_a_broken_case_is_told_and_tried_again(voxplain, cohort: Path) -> None:
    whole = (cohort / "c2.nii.gz").read_bytes()
    (cohort / "c2.nii.gz").write_bytes(whole[:200])
    done = run(voxplain)
    assert done.exit_code == 0, done.output
    assert "5 of 6 done, 1 failed" in done.stdout
    assert "failed: c2:" in done.stdout
    assert "voxplain study retry study" in done.stdout
    before = Store("study").runs().set_index("case")["created"]
    (cohort / "c2.nii.gz").write_bytes(whole)
    done = voxplain("study", "retry", "study")
    assert "6 of 6 done, 0 failed" in done.stdout, done.output
    after = Store("study").runs().set_index("case")["created"]
    assert [case for case in after.index if after[case] != before[case]] == ["c2"]


def test_another_study_in_the_folder_is_refused_until_restart(voxplain, cohort: Path) -> None:
    assert run(voxplain, "--n-cases", "1").exit_code == 0
    (cohort / "study" / "notes.txt").write_text("mine")
    refused = run(voxplain, "--n-cases", "1", "--seed", "5")
    assert refused.exit_code == 2
    assert "another seed" in refused.stderr
    assert run(voxplain, "--n-cases", "1", "--seed", "5", "--restart").exit_code == 0
    assert (cohort / "study" / "notes.txt").read_text() == "mine"


def test_changed_weights_are_refused(voxplain, cohort: Path) -> None:
    assert run(voxplain, "--n-cases", "1").exit_code == 0
    file = cohort / "model" / "weights.safetensors"
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    refused = run(voxplain, "--n-cases", "2")
    assert refused.exit_code == 2
    assert "another models" in refused.stderr


def test_a_file_says_the_same_as_options(voxplain, cohort: Path) -> None:
    assert run(voxplain, "--target", "class:spleen", out="a").exit_code == 0
    written = yaml.safe_load((cohort / "a" / "study.yaml").read_text())
    assert written["targets"] == ["class:spleen"]
    done = voxplain("study", "run", "a/study.yaml", "--out", "b")
    assert done.exit_code == 0, done.output
    one, two = (Store(name).table("tiny", "gradient") for name in "ab")
    assert np.array_equal(one.values["share"], two.values["share"])


def test_two_studies_are_compared(voxplain, cohort: Path) -> None:
    assert run(voxplain, out="a").exit_code == 0
    assert run(voxplain, "--seed", "3", out="b").exit_code == 0
    done = voxplain("study", "report", "a", "--against", "b", "--out", "page")
    assert done.exit_code == 0, done.output
    comparison = pd.read_csv("page/comparisons.csv")
    assert set(comparison["design"]) == {"paired"}
    assert np.allclose(comparison["difference"].dropna(), 0)


def test_a_table_goes_out_and_comes_in(voxplain, cohort: Path) -> None:
    assert run(voxplain).exit_code == 0
    assert voxplain("study", "export", "study", "--out", "wide.csv").exit_code == 0
    done = voxplain("study", "import", "wide.csv", "--out", "again")
    assert done.exit_code == 0, done.output
    one = Store("study").table("tiny", "gradient")
    two = Store("again").table("imported", "imported")
    assert two.targets == one.targets
    for target in one.targets:
        there = two.of_target(target)[list(one.regions)]
        assert np.allclose(there, one.of_target(target), equal_nan=True)
    assert voxplain("study", "retry", "again").exit_code == 2


def test_a_dry_run_writes_nothing(voxplain, cohort: Path) -> None:
    done = run(voxplain, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "tasks (case × model × method)" in done.stdout
    assert not (cohort / "study").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("study", "run", "--data", "manifest.csv"), "missing: --model"),
        (("study", "status", "nowhere"), "holds no study"),
        (("study", "report", "model"), "holds no study"),
        (("study", "run", "nowhere.yaml"), "cannot be read"),
    ],
)
def test_mistakes_are_told_in_a_line(voxplain, cohort: Path, words, text) -> None:
    done = voxplain(*words)
    assert done.exit_code == 2
    assert text in done.stderr


def test_unknown_words_of_a_study_are_told_at_once(voxplain, cohort: Path) -> None:
    (cohort / "s.yaml").write_text("models: {a: model}\ndata: manifest.csv\nmetods: [gradient]\n")
    done = voxplain("study", "run", "s.yaml")
    assert done.exit_code == 2
    assert "metods" in done.stderr
    done = run(voxplain, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert "not both" in done.stderr
    done = run(voxplain, "--target", "class:livr")
    assert done.exit_code == 2
    assert "liver" in done.stderr


def test_nothing_is_thrown_away_where_no_cluster_answers(voxplain, cohort: Path) -> None:
    assert run(voxplain, "--n-cases", "1").exit_code == 0
    before = Store("study").runs()
    words = ("--n-cases", "1", "--restart", "--scheduler")
    assert run(voxplain, *words, "tcp://127.0.0.1:9").exit_code == 2
    pd.testing.assert_frame_equal(Store("study").runs(), before)
    refused = run(voxplain, *words, "tcp://127.0.0.1:9", "--resource", "GPU=one")
    assert refused.exit_code == 2
    assert "NAME=NUMBER" in refused.stderr
