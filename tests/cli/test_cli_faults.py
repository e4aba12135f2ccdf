"""Every mistake: one clear line, exit code 2, and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from voxplain.cli.faults import PlainFaults, going_on
from voxplain.space import Grid, read_image, write_nifti
from voxplain.testing import phantoms

SROW = slice(280, 328)  # of a NIfTI-1 header: the affine's rows, float32


def missing_image(case):
    case.image.unlink()


def truncated(case):
    case.image.write_bytes(case.image.read_bytes()[:900])


def text_named_nifti(case):
    case.image.write_text("not an image\n")


def with_value(value):
    def make(case):
        image = read_image(case.image)
        image.data[0, 1, 2, 3] = value
        write_nifti(case.image, image.data, image.grid)

    return make


def with_affine(rows):
    def make(case):
        raw = bytearray(gzip.decompress(case.image.read_bytes()))
        raw[SROW] = np.asarray(rows, "<f4").tobytes()
        case.image.write_bytes(gzip.compress(bytes(raw)))

    return make


def two_channels(case):
    image = read_image(case.image)
    write_nifti("other.nii.gz", image.data, image.grid)
    return ("--image", "other.nii.gz")


def other_grid(case):
    image = read_image(case.image)
    affine = image.grid.affine.copy()
    affine[1, 3] += 0.5
    write_nifti("other.nii.gz", image.data, Grid(image.grid.shape, affine))
    return ("--image", "other.nii.gz")


def picture(case):
    Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9)).save("slice.png")
    return (*[a if a != str(case.image) else "slice.png" for a in case.base],)


def far_labels(case):
    grid = phantoms.oblique_grid()
    affine = grid.affine.copy()
    affine[0, 3] += 10_000
    labels = phantoms.labels(grid)
    write_nifti("far.nii.gz", labels.layers, Grid(grid.shape, affine))
    return ("--regions", "far.nii.gz")


def empty_mask(case):
    grid = phantoms.oblique_grid()
    write_nifti("empty.nii.gz", np.zeros(grid.shape, np.uint8), grid)
    return ("--target", "class:liver@mask:empty.nii.gz")


def fractional_regions(case):
    grid = phantoms.oblique_grid()
    write_nifti("half.nii.gz", np.full(grid.shape, 0.5), grid)
    return ("--regions", "half.nii.gz")


def no_weights(case):
    (case.model / "weights.safetensors").unlink()


def foreign_network(case):
    card = yaml.safe_load((case.model / "model.yaml").read_text())
    card["network"] = {"target": "my_network.Net"}
    (case.model / "model.yaml").write_text(yaml.safe_dump(card))
    (case.model / "my_network.py").write_text("raise SystemExit('this code ran')\n")


def out_is_a_file(case):
    Path("out").write_text("mine")
    return ("--out", "out")


def out_below_a_file(case):
    Path("out").write_text("mine")
    return ("--out", "out/deeper")


def given(*arguments):
    return lambda case: arguments


FAULTS = {
    "missing image": (missing_image, ["no such file", "patient_7.nii.gz"]),
    "truncated image": (truncated, ["patient_7.nii.gz", "damaged"]),
    "text named nifti": (text_named_nifti, ["patient_7.nii.gz", "cannot be read as NIfTI"]),
    "NaN": (with_value(np.nan), ["NaN"]),
    "infinity": (with_value(np.inf), ["infinit"]),
    "zero affine": (with_affine(np.zeros((3, 4))), ["patient_7.nii.gz", "affine"]),
    "singular affine": (
        with_affine([[1, 0, 0, 5], [2, 0, 0, 5], [0, 0, 1, 5]]), ["patient_7.nii.gz", "affine"],
    ),
    "too many channels": (two_channels, ["1 channel", "2 channels"]),
    "channels on different grids": (other_grid, ["different grids"]),
    "2D image": (picture, ["2D image for a 3D model"]),
    "folder as image": (given("--image", "model"), ["is a folder"]),
    "unknown format": (given("--image", "model/model.yaml"), ["unknown image format"]),
    "regions elsewhere": (far_labels, ["overlap"]),
    "regions missing": (given("--regions", "nowhere.nii.gz"), ["no such file: nowhere.nii.gz"]),
    "fractional regions": (fractional_regions, ["half.nii.gz", "whole numbers"]),
    "unknown class": (given("--target", "class:livre"), ["no class 'livre'", "mean 'liver'"]),
    "bad target": (given("--target", "livr"), ["'livr' is not a target", "class:NAME"]),
    "bad voxel": (given("--target", "voxel:1,x,2"), ["whole numbers"]),
    "voxel outside": (given("--target", "voxel:99,0,0"), ["99"]),
    "missing mask": (given("--target", "mask:none.nii.gz"), ["no such file: none.nii.gz"]),
    "empty mask": (empty_mask, ["empty"]),
    "no weights": (no_weights, ["no weights"]),
    "no model": (given("--model", "nowhere"), ["no model: nowhere is not there"]),
    "foreign network": (foreign_network, ["--trust-code", "my_network.Net"]),
    "unknown method": (given("--method", "smothgrad"), ["mean 'smoothgrad'"]),
    "unknown setting": (given("--set", "copies=8"), ["no setting 'copies'"]),
    "setting of a preset": (
        given("--method", "agg2exp-smoothgrad", "--set", "n=8"), ["preset", "fixed"],
    ),
    "setting without value": (given("--set", "n"), ["KEY=VALUE", "'n'"]),
    "setting twice": (given("--set", "n=2", "--set", "n=3"), ["twice", "'2'", "'3'"]),
    "setting not a number": (given("--set", "n=many"), ["n is a number", "'many'"]),
    "unknown device": (given("--device", "gpu7"), ["'gpu7'", "cuda"]),
    "out is a file": (out_is_a_file, ["out", "is a file"]),
    "out below a file": (out_below_a_file, ["out", "is a file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_gives_one_line_and_leaves_nothing(name, case, voxplain):
    prepare, words = FAULTS[name]
    arguments = prepare(case) or ()
    if "explain" not in arguments:
        arguments = (*case.base, *arguments)
    before = case.files()
    done = voxplain(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("voxplain: ")
    for word in words:
        assert word in line
    assert case.files() == before


def test_every_fault_of_a_card_is_listed(case, voxplain):
    path = case.model / "model.yaml"
    card = yaml.safe_load(path.read_text())
    card |= {"clases": ["a"], "activation": "sofmax"}
    card["window"]["overlapp"] = 0.5
    path.write_text(yaml.safe_dump(card))
    done = voxplain(*case.base)
    assert done.exit_code == 2
    first, *faults = done.stderr.splitlines()
    assert first.startswith("voxplain: ")
    assert "3 faults" in first
    assert len(faults) == 3
    for word in ("clases", "overlapp", "sofmax"):
        assert any(word in fault for fault in faults)
    assert not Path("voxplain-patient_7").exists()


def test_weights_that_do_not_match_are_listed(case, voxplain):
    other = torch.nn.Conv3d(1, 3, 5, padding=2)
    save_file(other.state_dict(), case.model / "weights.safetensors")
    before = case.files()
    done = voxplain(*case.base)
    assert done.exit_code == 2
    assert done.stderr.startswith("voxplain: ")
    assert "weights.safetensors" in done.stderr
    assert "(3, 1, 5, 5, 5)" in done.stderr
    assert "(3, 1, 3, 3, 3)" in done.stderr
    assert "Traceback" not in done.stderr
    assert case.files() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("explode",),
        ("explain", "--score", "logits", "--model", "m", "--image", "i"),
        ("explain", "--seed", "-1", "--model", "m", "--image", "i"),
        ("explain", "--batch-size", "0", "--model", "m", "--image", "i"),
        ("explain", "--image", "i"),
        ("report", "folder", "--scale", "big"),
    ],
)
def test_wrong_usage_exits_with_2(case, voxplain, arguments):
    before = case.files()
    done = voxplain(*arguments)
    assert done.exit_code == 2
    assert "Usage" in done.stderr
    assert case.files() == before


def test_a_report_needs_the_image_again(case, voxplain):
    done = voxplain("report", "folder")
    assert done.exit_code == 2
    assert "folder does not hold the image that was explained; give --image FILE" in done.stderr


def test_the_traceback_can_be_seen(case, voxplain, monkeypatch):
    monkeypatch.setenv("VOXPLAIN_TRACEBACK", "1")
    done = voxplain(*case.base, "--method", "none")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("voxplain: no method 'none'")


def test_a_defect_of_the_program_is_not_hidden(case, voxplain, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("voxplain.cli.job.explain", broken)
    before = case.files()
    done = voxplain(*case.base)
    assert done.exit_code == 1
    assert isinstance(done.exception, ZeroDivisionError)
    assert case.files() == before


# -- the disk ---------------------------------------------------------------------------------
@pytest.mark.parametrize("writer", ["nibabel.save", "pandas.DataFrame.to_parquet"])
def test_a_full_disk(case, voxplain, monkeypatch, writer):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, full)
    before = case.files()
    done = voxplain(*case.quick())
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "no space is left" in line
    assert case.files() == before


def test_a_disk_that_is_really_full(case, voxplain):
    disk = case.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no permission to mount a small file system")
    try:
        done = voxplain(*case.quick("--out", "disk/out"))
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "no space is left" in line
    assert left == []


def test_a_read_only_folder_is_found_before_any_pass(case, voxplain, monkeypatch):
    closed = case.folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if os.access(closed, os.W_OK):  # root may write everywhere: let the folder refuse
        mkdir = Path.mkdir

        def refuse(path: Path, *arguments, **keywords):
            if closed in path.parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            mkdir(path, *arguments, **keywords)

        monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("voxplain.cli.job.explain", lambda *_, **__: pytest.fail("it ran"))
    done = voxplain(*case.quick("--out", "closed/out"))
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "permission denied" in line
    assert list(closed.iterdir()) == []


# -- interruption -----------------------------------------------------------------------------
def test_ctrl_c_while_passes_run(case, voxplain, monkeypatch):
    @contextmanager
    def interrupted(is_quiet):
        def press(done: int, total: int) -> None:
            if done > 3:
                raise KeyboardInterrupt

        yield press

    monkeypatch.setattr("voxplain.cli.progress.passes_bar", interrupted)
    before = case.files()
    done = voxplain(*case.base, "--out", "a/b/out")
    assert done.exit_code == 2
    assert done.stderr == "voxplain: interrupted; no result was written\n"
    assert case.files() == before


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 2, "interrupted"), (signal.SIGTERM, 2, "terminated")],
)
def test_a_signal_to_a_running_program(case, number, code, word):
    before = case.files()
    running = subprocess.Popen(
        [sys.executable, "-c", "from voxplain.cli import main; main()", *case.base,
         "--set", "n=100000", "--batch-size", "1", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 100
        while not any(".part-" in name for name in case.files()):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        running.send_signal(number)
        output, errors = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == code
    assert output == ""
    assert errors == f"voxplain: {word}; no result was written\n"
    assert case.files() == before


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_what_is_kept_is_told(number, word):
    program = typer.Typer(cls=PlainFaults)

    @program.command()
    def one() -> None:
        with going_on("parts are kept"):
            signal.raise_signal(number)

    @program.command()
    def other() -> None: ...

    done = CliRunner().invoke(program, ["one"])
    assert done.exit_code == 2
    assert done.stderr == f"voxplain: {word}; parts are kept\n"
