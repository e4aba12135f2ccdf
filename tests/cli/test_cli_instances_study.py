"""``voxplain instances-study``: tables, report, bad folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from tests.lesion_studies import lesion_study, save_cases
from typer.testing import CliRunner

from voxplain.cli import instances_study as verb
from voxplain.cli.faults import PlainFaults
from voxplain.errors import DataError, RecordError
from voxplain.records.archive import file_sha256
from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, save_table
from voxplain.study.error_detector import DETECTOR, PR, ROC, SCORES
from voxplain.study.gather import gather
from voxplain.study.lesion_statistics import DISTRIBUTIONS
from voxplain.study.lesion_tests import EFFECTS, TESTS
from voxplain.study.mixed_model import MIXED

COLUMNS = {
    "distributions": DISTRIBUTIONS, "tests": TESTS, "effects": EFFECTS, "mixed": MIXED,
    "detector": DETECTOR, "roc": ROC, "pr": PR, "scores": SCORES,
}  # fmt: skip


@pytest.fixture
def tables():
    return lesion_study(np.random.default_rng(5), 8, 6, effect=2, types=("FP", "TP", "FN"))


@pytest.fixture
def cases(tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_cases(tables, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str):
    program = typer.Typer(cls=PlainFaults, pretty_exceptions_enable=False)
    program.callback()(lambda: None)
    program.command("instances-study", epilog=verb.EPILOG)(verb.instances_study)
    return CliRunner().invoke(program, ["instances-study", *arguments], prog_name="voxplain")


def test_every_table_is_written_and_told(cases):
    done = run("results", "--n-boot", "50", "--no-report")
    assert done.exit_code == 0, done.output
    out = Path("voxplain-instances-study")
    assert {p.name for p in out.iterdir()} == {f"{n}.csv" for n in COLUMNS} | {"provenance.json"}
    for name, columns in COLUMNS.items():
        table = pd.read_csv(out / f"{name}.csv")
        assert tuple(table.columns) == columns
        assert len(table)
    assert "net: 8 cases of 8 patients" in done.output
    assert "peak_positive" in done.output
    assert "TP – FP" in done.output
    assert "saliency + probability" in done.output
    known = json.loads((out / "provenance.json").read_text())
    assert known["files"] == {p.name: file_sha256(p) for p in out.glob("*.csv")}
    made = known["provenance"]
    assert (made["method"], made["seed"], made["model"]) == ("instances-study", 0, "net")
    assert made["parameters"]["n_boot"] == 50
    assert len(made["parameters"]["inputs"]) == 8 * 3
    for file, value in made["parameters"]["inputs"].items():
        assert file_sha256(Path(file)) == value
    assert made["versions"]["voxplain"]


def test_same_seed_same_tables(cases):
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        done = run("results", "--out", out, "--n-boot", "40", "--seed", seed, "--no-report", "-q")
        assert done.exit_code == 0, done.output
        assert done.output == ""
    for name in COLUMNS:
        texts = [Path(out, f"{name}.csv").read_text() for out in "abc"]
        assert texts[0] == texts[1]
        assert (texts[0] == texts[2]) == (name in {"tests", "mixed", "roc", "pr", "scores"})


def test_features_and_methods_are_chosen(tables, cases):
    instances, saliency, shells = tables
    other = (instances, saliency.assign(method="smooth"), shells.assign(method="smooth"))
    save_cases(other, cases / "more")
    done = run(
        "results", "more", "--feature", "share", "--feature", "volume_mm3", "--method", "smooth",
        "--n-boot", "20", "--no-report",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    out = Path("voxplain-instances-study")
    found = pd.read_csv(out / "distributions.csv", keep_default_na=False)
    assert set(zip(found["method"], found["feature"], strict=True)) == {
        ("smooth", "share"), ("none", "volume_mm3")
    }  # fmt: skip
    # the lesions of the two runs are the same ones
    assert found.loc[found["feature"] == "volume_mm3", "n"].astype(int).sum() == len(instances)
    assert set(pd.read_csv(out / "detector.csv")["method"]) == {"smooth"}


def test_report_is_written(cases):
    done = run("results", "--n-boot", "20")
    assert done.exit_code == 0, done.output
    page = Path("voxplain-instances-study/report.html").read_text("utf-8")
    assert "peak_positive" in page
    assert "8 cases of 8 patients" in page


def test_a_later_study_takes_the_place_of_an_earlier_one(cases):
    assert run("results", "--n-boot", "20", "-q").exit_code == 0
    (Path("voxplain-instances-study") / "mine.txt").write_text("kept")
    assert run("results", "--n-boot", "20", "-q", "--no-report").exit_code == 0
    names = {p.name for p in Path("voxplain-instances-study").iterdir()}
    assert names == {f"{n}.csv" for n in COLUMNS} | {"provenance.json", "mine.txt"}


def test_one_type_is_told(tables, tmp_path, monkeypatch):
    instances, saliency, shells = tables
    save_cases((instances.assign(type="lesion"), saliency, shells), tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    done = run("results", "--n-boot", "20", "--no-report")
    assert done.exit_code == 0, done.output
    assert "nothing to compare" in done.output
    assert "0 patients with a false positive" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["empty"], "empty holds no result of voxplain instances"),
        (["results", "--feature", "peaks"], "no feature 'peaks'"),
        (["results", "--method", "ig"], "no method 'ig' in the results"),
    ],
)
def test_bad_input_is_one_line(cases, arguments, message):
    (cases / "empty").mkdir()
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
    assert not Path("voxplain-instances-study").exists()


def test_gathered_tables_are_those_of_the_cases(tables, cases):
    found = gather([cases / "results"])
    for table, whole, columns in zip(found, tables, (INSTANCES, SALIENCY, SHELLS), strict=True):
        assert tuple(table.columns) == columns
        key = ["case", "instance", *({"from_mm", "to_mm"} & set(columns))]
        pd.testing.assert_frame_equal(
            table.sort_values(key, ignore_index=True),
            whole.sort_values(key, ignore_index=True),
            check_dtype=False,
        )


def test_a_folder_inside_another_counts_once(tables, cases):
    found, *_ = gather([cases / "results", cases / "results" / "deep", "results"])
    assert len(found) == len(tables[0])


def test_a_case_that_is_there_twice_is_told_with_both_folders(cases):
    shutil.copytree("results/c02", "copy/c02")
    with pytest.raises(DataError) as told:
        gather(["results", "copy"])
    assert "case c02, model net, method gradient is there 2 times" in str(told.value)
    assert "results/c02" in str(told.value)
    assert "copy/c02" in str(told.value)


def test_a_run_with_other_lesions_is_told(tables, cases):
    one = [table[table["case"] == "c02"].reset_index(drop=True) for table in tables]
    fewer = one[0].iloc[:-1]
    save_cases((fewer, one[1].assign(method="b"), one[2].assign(method="b")), cases / "other")
    with pytest.raises(DataError, match=r"case c02.*has 5 lesions in other.* and 6 in results"):
        gather(["results", "other"])


def test_all_faults_are_told_together(tables, cases):
    one = [table[table["case"] == "c02"].reset_index(drop=True) for table in tables]
    save_cases((one[0].assign(patient="x"), one[1], one[2]), cases / "other")
    with pytest.raises(DataError) as told:
        gather(["results", "other"])
    for part in ("3 faults", "is there 2 times", "not the same ones", "of the patients p02, x"):
        assert part in str(told.value)


def test_two_models_of_one_name_are_told(cases):
    for i, place in enumerate(("results/c00", "results/c02")):
        known = {"format": "voxplain lesions", "version": 1,
                 "provenance": {"model": "net", "model_sha256": f"{i}" * 64}}  # fmt: skip
        Path(place, "provenance.json").write_text(json.dumps(known))
    with pytest.raises(DataError, match=r"model net has other weights in .*c00 than in .*c02"):
        gather(["results"])


def test_cases_without_lesions_are_left_out(tables, cases):
    empty = tuple(table.iloc[:0] for table in tables)
    for name, table in zip(("instances", "saliency", "shells"), empty, strict=True):
        for place in (Path("results/aa_none"), Path("none/zz_none")):
            place.mkdir(parents=True, exist_ok=True)
            save_table(table.astype(object), place, name)
    found, *_ = gather(["results", "none"])
    assert len(found) == len(tables[0])
    assert found["n_voxels"].dtype.kind == "i"
    with pytest.raises(DataError, match="1 results of voxplain instances have no lesion"):
        gather(["none"])


def test_damaged_tables_are_told(tables, cases):
    table = tables[2][tables[2]["case"] == "c04"].reset_index(drop=True)
    save_table(table.drop(columns="mean"), Path("results/c04"), "shells")
    with pytest.raises(DataError, match=r"c04: the table shells .* missing: mean"):
        gather(["results"])
    Path("results/c04/shells.parquet").write_bytes(b"no table")
    with pytest.raises(RecordError, match=r"c04/shells\.parquet is not a saved table"):
        gather(["results"])
    Path("results/c04/shells.parquet").unlink()
    with pytest.raises(RecordError, match=r"shells\.parquet is not a saved table"):
        gather(["results"])
