"""``voxplain data``: a summary first, then every fault, then a fitting exit code."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from voxplain.cli import data
from voxplain.cli.data_summary import summary_of
from voxplain.cli.faults import PlainFaults
from voxplain.data import LAYOUTS, check, read_data
from voxplain.space import write_nifti
from voxplain.testing import phantoms
from voxplain.testing.phantoms import oblique_grid

program = typer.Typer(cls=PlainFaults, rich_markup_mode="rich")
program.add_typer(data.app, name="data")


def run(*arguments):
    return CliRunner().invoke(program, ["data", *map(str, arguments)], prog_name="voxplain")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """nnU-Net's raw layout: three training cases, one of them finer, and a test case."""
    monkeypatch.chdir(tmp_path)
    root = Path("Dataset7_[b]Torso")
    grids = {
        "a": oblique_grid(),
        "b": oblique_grid(seed=1),
        "c": oblique_grid((6, 8, 11), (0.6, 1, 2)),
    }
    for name, grid in grids.items():
        labels = phantoms.labels(grid, 2 if name == "a" else 1)
        write_nifti(root / "imagesTr" / f"{name}_0000.nii.gz", phantoms.volume(grid).data, grid)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", labels.layers, grid)
    image = phantoms.volume(oblique_grid(seed=4), seed=5)
    write_nifti(root / "imagesTs" / "t_0000.nii.gz", image.data, image.grid)
    (root / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "liver": 1, "spleen": 2},
                "numTraining": 3,
                "file_ending": ".nii.gz",
            }
        )
    )
    return root


def test_the_layouts_are_those_of_the_library():
    assert get_args(data.LayoutName) == tuple(LAYOUTS)


def test_a_sound_folder(folder):
    done = run("check", folder)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    lines = {line[:13].strip(): line[13:].strip() for line in done.stdout.splitlines()[1:-1]}
    assert done.stdout.splitlines()[0] == str(folder)
    assert lines == {
        "layout": "nnunet",
        "cases": "4 (train 3, test 1)",
        "channels": "CT",
        "classes": "1 liver, 2 spleen",
        "labelled": "3 cases",
        "shapes": "(5, 7, 11) to (6, 8, 11)",
        "spacings": "(0.6, 1, 2) mm to (0.7, 1.1, 2.3) mm",
        "orientation": "RAS 4",
        "metadata": "none",
        "looked at": "headers (--full: every voxel)",
    }
    assert done.stdout.splitlines()[-1] == "no fault found"


def test_full_counts_classes_and_writes_json(folder):
    done = run("check", folder, "--full", "--json", "out/found.json")
    assert done.exit_code == 0, done.output
    assert re.search(r"^classes +liver in 3, spleen in 1 *$", done.stdout, re.MULTILINE)
    assert re.search(r"^looked at +every voxel *$", done.stdout, re.MULTILINE)
    raw = json.loads(Path("out/found.json").read_text())
    assert raw["n_cases_of_class"] == {"liver": 3, "spleen": 1}
    assert raw["faults"] == []
    assert raw["level"] == "full"


def test_faults_come_after_the_summary_and_end_with_2(folder):
    (folder / "imagesTr" / "a_0000.nii.gz").unlink()
    (folder / "imagesTr" / "scan.nii.gz").touch()
    grid = oblique_grid(seed=1)
    write_nifti(folder / "labelsTr" / "b.nii.gz", np.full(grid.shape, 9, np.uint8), grid)
    write_nifti(folder / "labelsTr" / "c.nii.gz", np.zeros(grid.shape, np.uint8), grid)
    done = run("check", folder, "--full", "--json", "found.json")
    assert done.exit_code == 2
    text = done.stdout
    for words in (
        "3 (train 2, test 1)",
        "imagesTr/scan.nii.gz: the file name has no channel number",
        "a, labelsTr/a.nii.gz: labels without an image",
        "b, labelsTr/b.nii.gz: holds label 9, declared are 0 background, 1 liver, 2 spleen",
        "c, labelsTr/c.nii.gz: labels are on another grid than imagesTr/c_0000.nii.gz",
        "dataset.json: numTraining is 3, there are 2 training cases",
    ):
        assert words in text
    assert text.index("layout") < text.index("5 faults") < text.index("1 remark\n")
    assert "c, labelsTr/c.nii.gz: no voxel is labelled" in text.partition("1 remark\n")[2]
    assert done.stderr == f"voxplain: {folder}: 5 faults, listed above; mend them\n"
    assert len(json.loads(Path("found.json").read_text())["faults"]) == 5


def test_a_folder_of_no_layout(tmp_path):
    done = run("check", tmp_path)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "no data layout recognised. There are\n  - nnunet: " in done.stderr


def test_settings_reach_the_layout(tmp_path):
    image = phantoms.volume()
    for suffix in ("T1w", "FLAIR"):
        write_nifti(tmp_path / f"sub-1/anat/sub-1_{suffix}.nii", image.data, image.grid)
    labels = phantoms.labels()
    for suffix in ("dseg", "mask"):
        write_nifti(
            tmp_path / f"derivatives/x/sub-1/sub-1_{suffix}.nii", labels.layers, labels.grid
        )
    chosen = ("--channel", "FLAIR", "--channel", "T1w", "--labels", "dseg", "--layout", "bids")
    done = run("check", tmp_path, *chosen)
    assert done.exit_code == 0, done.output
    assert re.search(r"^channels +FLAIR, T1w *$", done.stdout, re.MULTILINE)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "m.csv").write_text("case,image\na,sub-1/anat/sub-1_T1w.nii\n")
    assert run("check", tmp_path / "lists" / "m.csv", "--base", tmp_path).exit_code == 0
    assert run("check", tmp_path / "lists" / "m.csv").exit_code == 2


def test_patients_and_metadata_are_not_printed(tmp_path):
    image = phantoms.volume()
    for name in "ab":
        write_nifti(tmp_path / f"{name}.nii", image.data, image.grid)
    (tmp_path / "manifest.csv").write_text(
        "case,image,split,patient,age,ward\na,a.nii,train,Doe,61.25,West\nb,b.nii,test,Doe,62.25,West\n"
    )
    done = run("check", tmp_path, "--full", "--json", tmp_path / "found.json")
    assert done.exit_code == 2
    assert re.search(r"^metadata +age, ward *$", done.stdout, re.MULTILINE)
    assert "cases of one patient are in different splits: a (train), b (test)" in done.stdout
    for text in (done.output, (tmp_path / "found.json").read_text()):
        for secret in ("Doe", "61.25", "West"):
            assert secret not in text


def test_manifest(folder):
    done = run("manifest", folder, "--out", "lists/torso.csv")
    assert done.exit_code == 0, done.output
    assert done.stdout == "lists/torso.csv: 4 cases of layout nnunet\n"
    frame = pd.read_csv("lists/torso.csv")
    assert list(frame) == ["case", "image_CT", "label", "split"]
    assert json.loads(Path("lists/labels.json").read_text())["2"] == "spleen"
    again = check(read_data("lists/torso.csv"), "full")
    assert again.found == ()
    before = summary_of(check(read_data(folder), "full"))
    assert {**summary_of(again), "layout": "nnunet"} == before


def test_manifest_of_faulty_lists(folder):
    (folder / "labelsTr" / "x.nii.gz").touch()
    done = run("manifest", folder, "--out", "x.csv")
    assert done.exit_code == 2
    assert "labels without an image in imagesTr" in done.stderr
    assert not Path("x.csv").exists()


def test_progress_in_a_terminal_only(folder, monkeypatch):
    monkeypatch.delenv("TERM", raising=False)
    shown = {}
    for is_terminal in (True, False):
        screen = io.StringIO()
        real = Console(file=screen, force_terminal=is_terminal, width=100, color_system=None)
        with monkeypatch.context() as patch:
            patch.setattr("rich.console.Console", lambda stderr, real=real: real)
            with data._files_bar() as progress:
                progress(3, 8)
        shown[is_terminal] = screen.getvalue()
    assert "checking files" in shown[True]
    assert "38%" in shown[True]
    assert shown[False].strip() == ""


@pytest.mark.parametrize("verb", ["check", "manifest"])
def test_help_teaches(verb):
    done = run(verb, "--help")
    assert done.exit_code == 0
    text = re.sub(r"[│\s]+", " ", done.stdout)
    command = typer.main.get_command(data.app).commands[verb]  # type: ignore[attr-defined]
    for option in command.params:
        if option.name == "help":
            continue
        assert option.help[-1] == "."
        assert option.help.split()[0] in text
    assert f"voxplain data {verb}" in text.partition("Example")[2]
    assert "Usage: voxplain data" in run("--help").stdout
