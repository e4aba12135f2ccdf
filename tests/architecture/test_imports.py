"""Reading results is light: torch is imported only where something is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "monai", "pandas", "matplotlib", "scipy", "nibabel", "skimage", "numpy")


def loaded_by(statement: str, packages: tuple[str, ...]) -> list[str]:
    """Which packages a fresh interpreter has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*[p for p in {packages!r} if p in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_voxplain_alone_loads_nothing_heavy() -> None:
    assert loaded_by("import voxplain", HEAVY) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import voxplain.report, voxplain.records, voxplain.regions, voxplain.space, voxplain.data",
        "from voxplain import Explanation, RegionTable",
        "from voxplain import Attribution, Explanation, importance, read_image, write_report",
    ],
)
def test_reading_loads_no_torch(statement: str) -> None:
    statement = statement.replace(", RegionTable", "; from voxplain.records import RegionTable")
    assert loaded_by(statement, ("torch", "monai")) == []


def test_computing_does_load_torch() -> None:
    assert loaded_by("from voxplain import explain", ("torch",)) == ["torch"]
