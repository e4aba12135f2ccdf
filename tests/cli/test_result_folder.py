"""An earlier explanation is replaced as a whole; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxplain.cli.job import result_folder
from voxplain.records import archive
from voxplain.records import explanation as record


def earlier(out: Path, *files: str) -> None:
    (out / "maps").mkdir(parents=True)
    index = {"format": record._FORM, "version": record._VERSION}
    (out / archive.INDEX).write_text(json.dumps({**index, "files": dict.fromkeys(files, "")}))
    for name in (*files, "report.html", "notes.txt"):
        if ".." not in name and not Path(name).is_absolute():
            (out / name).write_text("old")


def test_files_of_the_earlier_explanation_go(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "keep.txt"
    outside.write_text("mine")
    earlier(out, "old_map.nii.gz", "regions.csv", "maps/P1.nii.gz", "../keep.txt", str(outside))
    names = {"report.html", archive.INDEX, "old_map.nii.gz", "regions.csv", "maps/P1.nii.gz"}
    assert archive.saved_files(out) == names
    with result_folder(out) as folder:
        (folder / "regions.csv").write_text("new")
    assert sorted(p.name for p in out.rglob("*")) == ["notes.txt", "regions.csv"]
    assert (out / "regions.csv").read_text() == "new"
    assert outside.read_text() == "mine"


def test_an_error_leaves_the_earlier_explanation(tmp_path: Path) -> None:
    out = tmp_path / "out"
    earlier(out, "regions.csv")
    before = {p.name: p.read_text() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(KeyboardInterrupt), result_folder(out) as folder:  # noqa: PT012
        (folder / "regions.csv").write_text("new")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in out.rglob("*") if p.is_file()} == before
