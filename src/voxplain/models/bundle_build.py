"""What a MONAI bundle holds: network, transforms and inferer, built with or without trust."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError
from voxplain.models.bundle_config import (
    INFERERS,
    NETWORKS,
    SKIPPED,
    TRANSFORMS,
    PlainConfig,
)
from voxplain.models.network import build_network

_NETWORK = ("network_def", "network", "net")
_WORKFLOWS = ("inference", "evaluate", "train")
_SUFFIXES = (".json", ".yaml", ".yml")
_DICTIONARY = re.compile(r"(?<=[a-z])(d|D|Dict)$")


@dataclass(frozen=True)
class Bundle:
    """A bundle, read.

    Parameters
    ----------
    metadata
        ``configs/metadata.json``.
    config
        Name of the config file.
    network
        Without its weights.
    transforms
        Preprocessing that changes values or place of the image, in order.
    image_key
        Key of the image in dictionary transforms.
    inferer
        Class name of the inferer under ``"class"`` and its settings.
    postprocessing
        As in the file.
    """

    metadata: Mapping[str, Any]
    config: str
    network: nn.Module
    transforms: tuple[Callable[[Any], Any], ...]
    image_key: str
    inferer: Mapping[str, Any]
    postprocessing: Any


def read_bundle(folder: Path, config: str | None, *, trust_code: bool) -> Bundle:
    """Read and build what is needed for prediction, and nothing else of the bundle.

    Raises
    ------
    TrustError
        If that would run code and `trust_code` is not set; nothing has run then.
    ModelError
        If a file or an entry is missing or not understood.
    """
    metadata, raw, file = _read_files(folder, config)
    names = [name for name in _NETWORK if name in raw]
    missing = [] if names else ["network_def (or network)"]
    missing += [name for name in ("preprocessing", "inferer") if name not in raw]
    if missing:
        raise ModelError(
            f"{file}: no {', no '.join(missing)}; there are {', '.join(raw)}. Choose another file "
            "with config=NAME, or describe the network in a model card"
        )
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    key = next(iter(inputs), "image")
    build = _build_trusted if trust_code else _build_plain
    with warnings.catch_warnings():  # of defaults that changed since the bundle was written
        warnings.simplefilter("ignore", FutureWarning)
        network, transforms, inferer = build(folder, raw, file, names[0], key)
    return Bundle(metadata, file.name, network, transforms, key, inferer, raw.get("postprocessing"))


def _read_files(folder: Path, config: str | None) -> tuple[dict[str, Any], dict[str, Any], Path]:
    from monai.bundle import ConfigParser

    configs = folder / "configs"
    there = sorted(p.name for p in configs.iterdir() if p.suffix in _SUFFIXES)
    wanted = [config] if config else list(_WORKFLOWS)
    files = [configs / name for stem in wanted for name in there if Path(name).stem == stem
             or name == stem]  # fmt: skip
    if "metadata.json" not in there or not files:
        lacking = "metadata.json" if "metadata.json" not in there else f"{wanted[0]}.json"
        raise ModelError(f"{configs}: no {lacking}; there are {', '.join(there) or 'no files'}")
    try:
        parser = ConfigParser()
        parser.read_meta(str(configs / "metadata.json"))
        parser.read_config(str(files[0]))
        parser.resolve_macro_and_relative_ids()  # other files are read, nothing is run
    except Exception as error:  # whatever a damaged file makes a parser raise
        raise ModelError(f"{files[0]}: cannot be read as a bundle's config: {error}") from error
    raw = dict(parser.config)
    return dict(raw.pop("_meta_")), raw, files[0]


# -- without trust ------------------------------------------------------------------------
def _build_plain(
    folder: Path, raw: Mapping[str, Any], file: Path, network_name: str, key: str
) -> tuple[nn.Module, tuple[Callable[[Any], Any], ...], Mapping[str, Any]]:
    config = PlainConfig(raw, f"configs/{file.name}")
    network = config.entry(network_name)
    preprocessing = config.entry("preprocessing")
    inferer = config.entry("inferer")
    _note_networks(config, network, network_name)
    wanted = list(_transforms(config, preprocessing, "preprocessing", key))
    if isinstance(inferer, Mapping) and _last(inferer.get("_target_")) not in INFERERS:
        config.note_class(str(inferer.get("_target_")), "inferer")
    config.refuse_code()
    settings = {name: value for name, value in inferer.items() if name != "_target_"}
    return (
        _network(network, folder, network_name),
        tuple(_transform(one, f"configs/{file.name}") for one in wanted),
        {"class": _last(inferer["_target_"]), **settings},
    )


def _last(target: Any) -> str:
    return str(target).rpartition(".")[2]


def _full(target: str) -> str:
    return target if "." in target else f"monai.networks.nets.{target}"


def _note_networks(config: PlainConfig, value: Any, where: str) -> None:
    """Note classes in a network's entry that do not come from MONAI's networks or torch.nn."""
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if target is not None and not _full(str(target)).startswith(NETWORKS):
            config.note_class(str(target), where)
        for name, item in value.items():
            _note_networks(config, item, f"{where}::{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _note_networks(config, item, f"{where}::{index}")


def _network(value: Any, folder: Path, where: str) -> Any:
    """Build a network's entry; parts of it are built first."""
    if isinstance(value, list):
        return [_network(item, folder, where) for item in value]
    if not isinstance(value, Mapping):
        return value
    arguments = {
        name: _network(item, folder, where)
        for name, item in value.items()
        if name not in ("_target_", "_desc_", "_disabled_")
    }
    if "_target_" not in value:
        return arguments
    return build_network(_full(str(value["_target_"])), arguments, folder)


def _transforms(
    config: PlainConfig, value: Any, where: str, key: str
) -> Iterator[Mapping[str, Any]]:
    """Yield transforms that act on the image, in order; note those that are not allowed."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _transforms(config, item, f"{where}::{index}", key)
        return
    if not isinstance(value, Mapping) or "_target_" not in value:
        if isinstance(value, str):
            return  # an expression, noted already
        raise ModelError(f"{config.file}: {where} is no transform: {value!r}")
    target = str(value["_target_"])
    base = _DICTIONARY.sub("", _last(target))
    path = target.rpartition(".")[0]
    if value.get("_disabled_") in (True, "True", "true"):
        return
    if base not in TRANSFORMS or not f"{path}.".startswith(("monai.transforms.", ".")):
        _refuse_random(base, config.file)
        config.note_class(target, where)
        return
    if base == "Compose":
        yield from _transforms(config, value.get("transforms", []), f"{where}::transforms", key)
        return
    keys = value.get("keys", key)
    if key in ([keys] if isinstance(keys, str) else keys) and base not in SKIPPED:
        yield value


def _refuse_random(name: str, file: str) -> None:
    if name.startswith("Rand"):
        raise ModelError(
            f"{file}: preprocessing draws at random ({name}); choose the config of inference with "
            "config=NAME"
        )


def _transform(value: Mapping[str, Any], file: str) -> Callable[[Any], Any]:
    from monai import transforms

    name = _last(value["_target_"])
    arguments = {k: v for k, v in value.items() if k not in ("_target_", "_desc_", "_disabled_")}
    if "keys" in arguments:
        arguments["allow_missing_keys"] = True
    try:
        built: Callable[[Any], Any] = getattr(transforms, name)(**arguments)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: the transform {name} cannot be built: {error}") from error
    return built


# -- with trust ---------------------------------------------------------------------------
def _build_trusted(
    folder: Path, raw: Mapping[str, Any], file: Path, network_name: str, key: str
) -> tuple[nn.Module, tuple[Callable[[Any], Any], ...], Mapping[str, Any]]:
    """Let MONAI evaluate and build what is needed, with the bundle's folder on the import path."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(dict(raw))
    if "bundle_root" in raw:
        parser["bundle_root"] = str(folder)
    with _importable(folder):
        try:
            network = parser.get_parsed_content(network_name)
            preprocessing = parser.get_parsed_content("preprocessing")
            inferer = parser.get_parsed_content("inferer")
        except Exception as error:  # code of the bundle can raise anything
            raise ModelError(
                f"{file}: building the bundle fails: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{file}: {network_name} gives a {type(network).__name__}, not a network")
    settings = {name: value for name, value in vars(inferer).items() if not name.startswith("_")}
    steps = tuple(_flat(preprocessing, str(file), key))
    return network, steps, {"class": type(inferer).__name__, **settings}


def _flat(value: Any, file: str, key: str) -> Iterator[Callable[[Any], Any]]:
    from monai.transforms import Compose

    if isinstance(value, (list, tuple)) or type(value) is Compose:
        for item in value.transforms if type(value) is Compose else value:
            yield from _flat(item, file, key)
        return
    base = _DICTIONARY.sub("", type(value).__name__)
    _refuse_random(base, file)
    if base in SKIPPED:
        return
    if hasattr(value, "keys"):
        if key not in value.keys:
            return
        value.allow_missing_keys = True
    yield value


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put a bundle's folder first on the import path, and undo it.

    Its modules are forgotten afterwards, so that two bundles can each have ``scripts``.
    """
    path = folder.resolve()
    sys.path.insert(0, str(path))
    try:
        yield
    finally:
        sys.path.remove(str(path))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and path in Path(file).parents:
                del sys.modules[name]
