"""Errors a user can cause and mend.

Every message says what was expected, what came (with its value) and what to do.
The command line prints the message without a traceback and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


class VoxplainError(Exception):
    """Base of every error that a user's input, files or settings can cause."""


class ImageError(VoxplainError):
    """An image file cannot be read, or holds values that cannot be explained."""


class GridError(VoxplainError):
    """Two things that must lie on one grid do not, or a grid is not usable."""


class LabelError(VoxplainError):
    """A label map, a region or a name in one is wrong."""


class ModelError(VoxplainError):
    """A model cannot be loaded, or does not fit its description or the image."""


class TrustError(ModelError):
    """Loading this model would run code that the user has not allowed."""


class TargetError(VoxplainError):
    """A target names something that is not there, or cannot be evaluated."""


class MethodError(VoxplainError):
    """A method's settings are out of range, or the model cannot serve it."""


class OutputError(VoxplainError):
    """A result cannot be written."""


class RecordError(VoxplainError):
    """A saved result cannot be read back."""


class DataError(VoxplainError):
    """A data folder or list of cases cannot be understood, or breaks its own layout."""


class TrainingError(VoxplainError):
    """A recipe, its data or a saved state cannot be trained with."""


class ClusterError(VoxplainError):
    """The workers of a study cannot be reached, or are lost."""


class MissingExtraError(VoxplainError):
    """An optional dependency is needed and not installed."""


def all_faults(where: str, faults: Iterable[str]) -> str:
    """Join every fault found in one place into one message.

    Parameters
    ----------
    where
        What was checked, e.g. a file name.
    faults
        One sentence a fault.

    Returns
    -------
    str
        One line for a single fault, else a heading and one line a fault.
    """
    found = list(faults)
    if len(found) == 1:
        return f"{where}: {found[0]}"
    return "\n".join([f"{where}: {len(found)} faults", *(f"  - {fault}" for fault in found)])


def needs_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a package that is not always installed.

    Parameters
    ----------
    module
        Import path, e.g. ``pydicom``.
    extra
        Extra of voxplain that brings it.
    purpose
        What it is needed for; the start of the error's sentence, e.g. ``reading DICOM``.

    Raises
    ------
    MissingExtraError
        If it is not installed, or cannot be imported; the message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        advice = f"pip install 'voxplain[{extra}]'"
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            raise MissingExtraError(f"{purpose} needs {top}: {advice}") from None
        raise MissingExtraError(
            f"{purpose} needs {top}, which is installed and cannot be imported ({error}); a part "
            f"of it may be missing: {advice}"
        ) from error
