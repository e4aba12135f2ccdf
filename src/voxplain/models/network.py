"""Building a network from its import path, with a guard on whose code may run."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from voxplain.errors import ModelError, TrustError
from voxplain.models import timm_network
from voxplain.space.labelmap import nearest

# Where a class of a card may come from without trust. The rest of the two packages is not in
# it: a card must not be able to name, say, torch.hub.load or torch.os.system.
TRUSTED = ("monai.networks.nets", "monai.networks.blocks", "monai.networks.layers", "torch.nn")


def build_network(
    target: str, arguments: Mapping[str, Any], folder: Path, *, trust_code: bool = False
) -> nn.Module:
    """Import a network's class and call it.

    Parameters
    ----------
    target
        Import path of a ``torch.nn.Module`` class, or of a function that returns one.
    arguments
        Its keyword arguments.
    folder
        The card's folder; modules in it can be imported if `trust_code` is set.
    trust_code
        Allow code from outside ``monai.networks`` and ``torch.nn``, and any argument of
        ``timm.create_model``.

    Raises
    ------
    TrustError
        If other code would be imported and that is not allowed.
    ModelError
        If the path leads nowhere, the arguments do not fit, or no module comes out.

    Notes
    -----
    Nothing is downloaded: ``pretrained`` of MONAI's and timm's networks is set to false, since
    the weights come from the card's folder.
    """
    path, _, name = target.rpartition(".")
    is_timm = target == timm_network.TARGET
    trusted = is_timm or any(f"{path}.".startswith(f"{prefix}.") for prefix in TRUSTED)
    if not (trusted or trust_code):
        raise TrustError(_what_would_run(target, folder))
    if is_timm and not trust_code:
        timm_network.check_arguments(arguments)
    with _importable(folder, path.split(".", maxsplit=1)[0], extend=trust_code and not trusted):
        factory = _attribute(path, name)
        if trusted and not (trust_code or is_timm or _makes_network(factory)):
            raise TrustError(
                f"network.target {target} is no network class of monai.networks or torch.nn, and "
                "calling it could run any code; name a network class, or, if you trust this "
                "card, allow it with --trust-code (Python: trust_code=True)"
            )
        if trusted:
            arguments = _without_download(factory, arguments)
        try:
            module = factory(**arguments)
        except Exception as error:
            raise ModelError(
                f"network.arguments do not fit {target}{_signature(factory)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"network.target {target} gives {type(module).__name__}, expected a torch.nn.Module"
        )
    return module


def _attribute(path: str, name: str) -> Any:
    try:
        package = importlib.import_module(path)
    except Exception as error:
        raise ModelError(
            f"network.target {path}.{name}: cannot import {path} ({type(error).__name__}: {error})"
            f"{_remedy(path, error)}"
        ) from error
    if not hasattr(package, name):
        public = tuple(n for n in vars(package) if n[:1].isupper())
        close = nearest(name, public).partition(" Known: ")[0]
        raise ModelError(f"network.target: {path} has no {name!r}{close}")
    factory = getattr(package, name)
    if not callable(factory):
        raise ModelError(f"network.target {path}.{name} is not a class, but {factory!r}")
    return factory


def _remedy(path: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == path == "timm":
        return "; install it: pip install timm"
    if "torchvision" in str(error):
        return (
            f"; it needs torchvision, whose build does not fit torch {torch.__version__}: install "
            "the two together, as https://pytorch.org/get-started tells for this machine"
        )
    return ""


def _without_download(factory: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with `pretrained` off: the weights are the card's."""
    asked = [name for name, value in arguments.items() if name.startswith("pretrained") and value]
    if asked:
        raise ModelError(
            f"network.arguments.{asked[0]}: nothing is downloaded, the weights come from the "
            "card's folder; remove it"
        )
    has_it = "pretrained" in _parameters(factory)
    return {**arguments, "pretrained": False} if has_it else dict(arguments)


def _makes_network(factory: Any) -> bool:
    """Whether this is a network class of the trusted packages, or a function typed as one."""
    owner = f"{getattr(factory, '__module__', '')}."
    if not any(owner.startswith(f"{prefix}.") for prefix in TRUSTED):
        return False
    made = factory
    if inspect.isfunction(factory):
        made = get_type_hints(factory).get("return")
    return inspect.isclass(made) and issubclass(made, nn.Module)


def _signature(factory: Any) -> str:
    names = _parameters(factory)
    return f"({', '.join(names)})" if names else ""


def _parameters(factory: Any) -> list[str]:
    """Names of a callable's parameters; none where they cannot be told."""
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return []


def _what_would_run(target: str, folder: Path) -> str:
    top = target.split(".", maxsplit=1)[0]
    spec = _spec(top, folder)
    if spec is None:
        where = f"module {top!r}, which is neither in {folder} nor installed"
    elif spec.origin in (None, "namespace"):
        where = f"module {top!r} from {', '.join(spec.submodule_search_locations or ())}"
    else:
        where = f"module {top!r} from {spec.origin}"
    return (
        f"loading this model would import {target} and run its code: {where}. Only network "
        f"classes of monai.networks and torch.nn are imported unasked. Read the code first; if you "
        "trust it, allow it with --trust-code (Python: trust_code=True)"
    )


def _spec(top: str, folder: Path) -> ModuleSpec | None:
    """Where a top-level module would be imported from; nothing is imported."""
    beside = PathFinder.find_spec(top, [str(folder)])
    if beside is not None:
        return beside
    try:
        return find_spec(top)
    except (ImportError, ValueError):
        return None


@contextmanager
def _importable(folder: Path, top: str, *, extend: bool) -> Iterator[None]:
    """Put the card's folder first on the import path, and undo it.

    A module of the folder is imported afresh and forgotten afterwards, so that two cards can
    each have, say, a ``network.py``.
    """
    if not extend:
        yield
        return
    owns = PathFinder.find_spec(top, [str(folder)]) is not None
    hidden = _modules_under(top) if owns else {}
    for name in hidden:
        del sys.modules[name]
    path = str(folder)
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if path in sys.path:
            sys.path.remove(path)
        if owns:
            for name in _modules_under(top):
                del sys.modules[name]
            sys.modules.update(hidden)


def _modules_under(top: str) -> dict[str, Any]:
    return {n: m for n, m in sys.modules.items() if n == top or n.startswith(f"{top}.")}
