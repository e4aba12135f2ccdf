"""Optional packages: loaded only when needed, and named by the message where they are missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxplain.errors import MissingExtraError, needs_extra

OPTIONAL = ("nnunetv2", "totalsegmentator", "pydicom", "highdicom", "torchvision", "timm")
_BLOCKED = """
import sys
for name in {names!r}:
    sys.modules[name] = None
from voxplain.cli import main
sys.argv = ["voxplain", *{arguments!r}]
main()
"""


@pytest.mark.parametrize(
    "module", ["voxplain", "voxplain.cli.app", "voxplain.models", "voxplain.space"]
)
def test_none_is_loaded_unasked(module: str) -> None:
    code = f"import sys, {module}; print([n for n in {OPTIONAL!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match=r"reading X needs no_such: pip .*voxplain\[x\]"):
        needs_extra("no_such.part", "x", "reading X")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match="needs nibabel"):
        needs_extra("nibabel", "x", "reading X")


def test_a_package_that_lacks_a_part_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"cannot be imported .*no_such_part"):
        needs_extra("half_there", "x", "reading X")


def image(folder: Path) -> Path:
    file = folder / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), file)
    return file


def nnunet(folder: Path) -> list[str]:
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").write_text("{}")
    return ["--model", str(folder), "--image", str(image(folder))]


def totalseg(folder: Path) -> list[str]:
    return ["--model", "totalseg:total", "--image", str(image(folder))]


def dicom(folder: Path) -> list[str]:
    (folder / "series").mkdir()
    (folder / "series" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 8)
    return ["--model", str(folder), "--image", str(folder / "series")]


@pytest.mark.parametrize(
    ("arguments", "extra"), [(nnunet, "nnunet"), (totalseg, "totalseg"), (dicom, "dicom")]
)
def test_the_command_line_names_the_extra(arguments, extra: str, tmp_path: Path) -> None:
    given = ["explain", *arguments(tmp_path)]
    code = _BLOCKED.format(names=OPTIONAL, arguments=given)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install 'voxplain[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extras_that_messages_name_exist() -> None:
    declared = " ".join(requires("voxplain") or [])
    for extra in ("nnunet", "totalseg", "dicom"):
        assert f"extra == '{extra}'" in declared.replace('"', "'")
