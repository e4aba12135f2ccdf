"""What stands beside every result so that it can be made again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import numpy as np

_PACKAGES = (
    "voxplain", "torch", "monai", "numpy", "scipy", "nibabel",
    "nnunetv2", "TotalSegmentator", "pydicom",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; absent ones left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Cost:
    """What a computation took.

    Parameters
    ----------
    n_forward, n_backward
        Passes of one window through the network.
    seconds
        Wall time.
    peak_memory_bytes
        Highest memory of the process (CPU: resident set; CUDA: allocated) while it ran.
    """

    n_forward: int = 0
    n_backward: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Provenance:
    """Model, image, method and machine of one result; plain values only.

    Parameters
    ----------
    model, model_sha256
        Name of the model, hash of its weights.
    case, image_sha256
        Name of the case, hash of the image's values, shape and affine.
    method
        Name of the method.
    parameters
        Every setting that decides the result: method's, window plan's, precision, device.
        Text, numbers, truth values, None, and sequences and mappings of them; kept as JSON
        gives them back (a tuple becomes a list, a path its text), so that a record read back
        is equal.
    seed
        Seed of all random draws.
    cost
        Passes, seconds, memory.
    versions
        From `package_versions`.
    created
        UTC time, ISO 8601.

    Raises
    ------
    TypeError
        If a parameter is something that JSON cannot hold.
    """

    model: str
    model_sha256: str
    case: str
    image_sha256: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cost: Cost = field(default_factory=Cost)
    versions: Mapping[str, str] = field(default_factory=package_versions)
    created: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _plain(self.parameters, "parameters"))
        object.__setattr__(self, "versions", dict(self.versions))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Inverse of `to_dict`."""
        return cls(**{**values, "cost": Cost(**values["cost"])})


def _plain(value: Any, where: str) -> Any:
    """Value as JSON would give it back; `where` names it in the error."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist(), where)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (Sequence, Set)):
        items = sorted(value) if isinstance(value, Set) else value
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
    raise TypeError(f"{where} is a {type(value).__name__}; provenance holds plain values only")
