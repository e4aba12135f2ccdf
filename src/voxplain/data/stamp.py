"""Names, sizes and times of files: tells them from changed ones without reading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def stamp(files: Sequence[Path]) -> str:
    """Text that changes with the files.

    Parameters
    ----------
    files
        Files, or folders (then of what lies in them); missing ones count as missing.
    """
    every = [one for file in files for one in (sorted(file.iterdir()) if file.is_dir() else [file])]
    told = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in every if one.exists()]
    return repr(told)
