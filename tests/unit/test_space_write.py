"""Whole or not at all."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from voxplain.errors import OutputError
from voxplain.space import atomic_file, atomic_folder, write_nifti
from voxplain.testing import phantoms


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*"))


def test_a_new_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "a" / "out"
    with atomic_folder(target) as folder:
        (folder / "x.txt").write_text("x")
        (folder / "sub").mkdir()
        (folder / "sub" / "y.txt").write_text("y")
        assert not target.exists()
        assert folder.parent == target.parent
    assert names(tmp_path) == ["a", "out", "sub", "x.txt", "y.txt"]


def test_files_of_an_existing_folder_are_replaced_by_name(tmp_path):
    target = tmp_path / "out"
    (target / "sub").mkdir(parents=True)
    for name in ("keep.txt", "x.txt", "sub/keep.txt"):
        (target / name).write_text("old")
    with atomic_folder(target) as folder:
        (folder / "x.txt").write_text("new")
        (folder / "sub").mkdir()
        (folder / "sub" / "y.txt").write_text("new")
        assert (target / "x.txt").read_text() == "old"
    assert (target / "x.txt").read_text() == (target / "sub" / "y.txt").read_text() == "new"
    assert (target / "keep.txt").read_text() == (target / "sub" / "keep.txt").read_text() == "old"
    assert names(tmp_path) == ["keep.txt", "keep.txt", "out", "sub", "x.txt", "y.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OutputError])
def test_nothing_is_left_after_an_exception(tmp_path, error):
    def run() -> None:
        with atomic_folder(tmp_path / "a" / "b" / "out") as folder:
            (folder / "x.txt").write_text("half")
            raise error

    with pytest.raises(error):
        run()
    assert names(tmp_path) == []


def test_an_existing_folder_is_untouched_after_an_exception(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.txt").write_text("old")

    def run() -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "x.txt").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert names(tmp_path) == ["out", "x.txt"]
    assert (tmp_path / "out" / "x.txt").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    def run() -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "x.txt").write_text("half")
            with Path("/dev/full").open("w") as full:
                full.write("x" * 100_000)

    with pytest.raises(OutputError, match=r"^cannot write .*out: no space is left on the disk"):
        run()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space is left on the disk"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
    ],
)
def test_what_the_system_says_of_the_target(tmp_path, monkeypatch, code, message):
    def refuse(self, *_args, **_kwargs):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(OutputError, match=f"cannot write .*out: .*{message}"),
        atomic_folder(tmp_path / "out"),
    ):
        pytest.fail("must not be entered")


def test_a_message_without_a_code(tmp_path):
    with (
        pytest.raises(OutputError, match="no space is left"),
        atomic_folder(tmp_path / "out"),
    ):
        raise OSError("writer: No space left on device")


def test_errors_about_other_files_are_not_renamed(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "out"):
        Path("/nowhere/at/all").read_text()
    with pytest.raises(PermissionError), atomic_folder(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/nowhere/at/all")
    assert names(tmp_path) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(OutputError, match="it is a file, not a folder"),
        atomic_folder(tmp_path / "out"),
    ):
        pytest.fail("must not be entered")
    with (
        pytest.raises(OutputError, match="a part of the path is a file"),
        atomic_folder(tmp_path / "out" / "deeper"),
    ):
        pytest.fail("must not be entered")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OutputError, match="it is a folder"), atomic_file(tmp_path / "folder.nii"):
        pytest.fail("must not be entered")
    assert names(tmp_path) == ["folder.nii", "out"]


def test_left_overs_of_killed_processes_are_removed(tmp_path):
    kill = (
        "import os, signal; from voxplain.space import atomic_folder\n"
        f"with atomic_folder({str(tmp_path / 'out')!r}) as folder:\n"
        "    (folder / 'x').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", kill], check=False)
    (left,) = tmp_path.iterdir()
    assert socket.gethostname() in left.name
    living = tmp_path / left.name.replace(
        left.name.rsplit("-", 2)[1], str(os.getppid())
    )  # of a process that still runs
    living.mkdir()
    elsewhere = tmp_path / f".out.part-another-host-{2**22 + 1}-0123abcd"
    elsewhere.mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([living.name, elsewhere.name, "out"])


def test_a_file_is_replaced_only_when_complete(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("old")

    def run() -> None:
        with atomic_file(target) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.nii.gz"]
    with atomic_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.nii.gz"]


def test_a_nifti_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    import nibabel

    def full(_image, path):
        Path(path).write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", full)
    volume = phantoms.volume()
    with pytest.raises(OutputError, match=r"a\.nii\.gz: no space is left"):
        write_nifti(tmp_path / "a.nii.gz", volume.data, volume.grid)
    assert names(tmp_path) == []
