"""Weights: read without running code, fitted to a network, identified by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxplain.errors import ModelError

NAMES = ("weights.safetensors", "weights.pt", "weights.pth")
_SAFE = (".safetensors",)
_PICKLED = (".pt", ".pth")
_NESTED = ("state_dict", "model", "network_weights", "model_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")
_SHOWN = 4


def find_weights(folder: Path, name: str | None = None) -> Path:
    """File of the weights in a model's folder.

    Raises
    ------
    ModelError
        If it is not there.
    """
    candidates = [folder / n for n in (NAMES if name is None else (name,))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    expected = " or ".join(str(c) for c in candidates)
    raise ModelError(f"no weights: expected {expected}; put the file there or set weights: …")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict on the CPU without running any code from the file.

    A state dict nested under ``state_dict``, ``model``, ``model_state_dict`` or
    ``network_weights`` is taken out.

    Raises
    ------
    ModelError
        If the file cannot be read, would need code to be run, or holds no tensors.
    """
    suffix = path.suffix.lower()
    if suffix in _SAFE:
        return _state_dict(_read_safetensors(path), path)
    if suffix in _PICKLED:
        return _state_dict(_read_pickled(path), path)
    raise ModelError(
        f"{path}: weights are a {', '.join(_SAFE + _PICKLED)} file, got {suffix or 'no suffix'}"
    )


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({error})") from None


def _read_pickled(path: Path) -> Any:
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ModelError(
            f"{path}: holds more than tensors, and reading it could run code; save "
            f"module.state_dict() alone, best as .safetensors ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read as torch weights ({error})") from None


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    while isinstance(loaded, Mapping):
        nested = [k for k in _NESTED if isinstance(loaded.get(k), Mapping)]
        if not nested:
            break
        loaded = loaded[nested[0]]
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: expected a state dict, got {type(loaded).__name__}")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{path}: expected a state dict of tensors, got keys {list(loaded)[:5]}")
    return tensors


def fit_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Load `weights` into `module`, every name and shape matching.

    A ``module.`` (data parallel training) or ``_orig_mod.`` (a compiled network) before every
    name of the file is removed, unless the network's own names begin so.

    Raises
    ------
    ModelError
        If a name is missing or unexpected or a shape differs; the module is then unchanged.
    """
    wanted = module.state_dict()
    while prefix := next((p for p in _WRAPPERS if _all_begin(weights, p)), None):
        if _all_begin(wanted, prefix):
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    missing = [n for n in wanted if n not in weights]
    unexpected = [n for n in weights if n not in wanted]
    differing = [
        f"{n} {tuple(weights[n].shape)} against {tuple(wanted[n].shape)}"
        for n in wanted
        if n in weights and weights[n].shape != wanted[n].shape
    ]
    if not (missing or unexpected or differing):
        module.load_state_dict(dict(weights))
        return
    parts = [f"{source}: weights do not fit the network: {len(weights)} tensors in the file, "
             f"{len(wanted)} in the network"]  # fmt: skip
    for title, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("other shape (file against network)", differing),
    ):
        if names:
            more = ", …" if len(names) > _SHOWN else ""
            parts.append(f"  {len(names)} {title}: {', '.join(names[:_SHOWN])}{more}")
    parts.append("  " + _cause(len(wanted), missing, unexpected, differing))
    raise ModelError("\n".join(parts))


def _all_begin(weights: Mapping[str, torch.Tensor], prefix: str) -> bool:
    return bool(weights) and all(name.startswith(prefix) for name in weights)


def _cause(n_wanted: int, missing: list[str], unexpected: list[str], differing: list[str]) -> str:
    if len(missing) == n_wanted:
        return (
            "no name agrees: (a) weights of another network, or (b) names with a prefix; check "
            "network.target"
        )
    if differing and not (missing or unexpected):
        return (
            "names agree and shapes differ: check network.arguments (numbers of channels, "
            "classes, features, spatial axes)"
        )
    return (
        "some names agree: check network.arguments (depth, residual units, norm, deep "
        "supervision) and the version of the network's package"
    )


def weights_sha256(module: nn.Module) -> str:
    """Hash of every parameter and buffer: names in order, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            digest.update(repr((name, value)).encode())
            continue
        plain = value.detach().cpu().contiguous()
        digest.update(repr((name, str(plain.dtype), tuple(plain.shape))).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
