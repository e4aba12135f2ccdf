"""Results appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from voxplain.errors import OutputError

_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EFBIG: "the file is too large for this file system; choose another folder",
    errno.EIO: "the disk reports an input/output error; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Give a folder to write into that becomes `path` only if all goes well.

    The folder lies beside its target, so that renaming is instant. If the target exists
    already (it may be a mount point), the folder lies in it, and the new files are moved up and
    replace those of the same name; others stay.
    After any exception, an interruption included, nothing is left: neither the temporary
    folder nor a parent folder that was made for it. Temporary folders that a killed process
    of this machine left beside the same target are removed.

    Parameters
    ----------
    path
        Folder that is to hold the results.

    Yields
    ------
    Path
        An empty folder.

    Raises
    ------
    OutputError
        If there is no space, no permission, or the target is a file.
    """
    target = Path(path).resolve()
    with _said_plainly(target), _parents(target):
        if target.exists() and not target.is_dir():
            raise OutputError(f"cannot write results to {target}: it is a file, not a folder")
        # an existing folder may be a mount point or have a parent that is not ours: work in it
        place = target / (target.name or "out") if target.is_dir() else target
        _remove_stale(place)
        temporary = _beside(place)
        temporary.mkdir()
        try:
            yield temporary
            if target.is_dir():
                _move_into(temporary, target)
            else:
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Give a file name to write to that becomes `path` only if all goes well.

    As `atomic_folder`, for one file; the temporary name keeps the suffixes, which readers
    and writers go by.

    Parameters
    ----------
    path
        File to write or replace.

    Yields
    ------
    Path
        Name of a file that does not exist yet.

    Raises
    ------
    OutputError
        If there is no space, no permission, or the target is a folder.
    """
    target = Path(path).resolve()
    with _said_plainly(target), _parents(target):
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder, not a file name")
        _remove_stale(target)
        temporary = _beside(target)
        try:
            yield temporary
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _said_plainly(target: Path) -> Iterator[None]:
    """Turn what the operating system says of a full or closed disk into one line."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None and "no space left" in str(error).lower():
            reason = _REASONS[errno.ENOSPC]
        if error.filename is not None:
            place = Path(os.fsdecode(error.filename)).absolute()
            if place != target and not (
                place.is_relative_to(target.parent) or target.is_relative_to(place)
            ):
                raise  # about another file than the one that is written
            reason = reason or f"{error.strerror}; choose another folder"
        if reason is None:
            raise
        raise OutputError(f"cannot write {target}: {reason}") from error


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the missing parents of a path; take them away again after an exception."""
    missing = [p for p in target.parents if not p.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def _prefix(target: Path) -> str:
    return f".{target.name.split('.')[0] or 'out'}.part-{socket.gethostname()}-"


def _beside(target: Path) -> Path:
    name = f"{_prefix(target)}{os.getpid()}-{secrets.token_hex(4)}{''.join(target.suffixes)}"
    return target.with_name(name)


def _remove_stale(target: Path) -> None:
    """Remove what processes of this machine that run no more left beside a target."""
    prefix = _prefix(target)
    for path in target.parent.iterdir():
        pid = path.name.removeprefix(prefix).split("-")[0]
        if not path.name.startswith(prefix) or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _move_into(source: Path, target: Path) -> None:
    """Move every file of a folder to the same place in another."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
