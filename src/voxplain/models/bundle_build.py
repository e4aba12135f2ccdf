"""What a MONAI bundle holds: network, transforms and inferer, built with or without trust."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError
from voxplain.models.bundle_config import (
    PlainConfig,
    arguments_of,
    class_name,
    classes_in,
    is_disabled,
)
from voxplain.models.bundle_transforms import (
    Preprocessing,
    built_preprocessing,
    plain_preprocessing,
    reads_columns_first,
)
from voxplain.models.network import build_network

_NETWORK = ("network_def", "network", "net")
_WORKFLOWS = ("inference", "evaluate", "train")
_SUFFIXES = (".json", ".yaml", ".yml")
_METADATA = "metadata.json"

# Where a network's classes may come from unasked. The rest of the packages is not in it: some
# of MONAI's other functions write files or take compiled engines from them.
_NETWORKS = (
    "monai.networks.nets.", "monai.networks.blocks.", "monai.networks.layers.", "torch.nn.",
)  # fmt: skip
# What decides the stitched logits; the inferer's other settings are about devices and progress.
_DECISIVE = ("roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval", "with_coord")
_INDIFFERENT = (
    "sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh",
    "buffer_steps", "buffer_dim",
)  # fmt: skip


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
    preprocessing
        Transforms of the image.
    is_columns_first
        Whether pictures have axes (column, row) for the bundle, as MONAI reads them.
    inferer
        Class name of the inferer under ``"class"`` and its settings.
    plain
        The config as plain data.
    """

    metadata: Mapping[str, Any]
    config: str
    network: nn.Module
    preprocessing: Preprocessing
    is_columns_first: bool
    inferer: Mapping[str, Any]
    plain: PlainConfig

    def formats(self, side: str) -> Mapping[str, Any]:
        """Return what the metadata say of inputs or outputs, by name."""
        return formats(self.metadata, side)


_Parts = tuple[nn.Module, Preprocessing, Mapping[str, Any]]


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
        there = ", ".join(name for name in raw if name != "_meta_")
        raise ModelError(
            f"{file}: no {', no '.join(missing)}; there are {there}. Choose another file "
            "with config=NAME, or describe the network in a model card"
        )
    plain = PlainConfig(raw, f"configs/{file.name}")
    inputs = tuple(formats(metadata, "inputs"))
    build = _build_trusted if trust_code else _build_plain
    with warnings.catch_warnings():  # of defaults that changed since the bundle was written
        warnings.simplefilter("ignore", FutureWarning)
        network, preprocessing, inferer = build(folder, plain, names[0], inputs)
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{file}: {names[0]} gives {type(network).__name__}, expected a network: a class "
            "under _target_ that is a torch.nn.Module"
        )
    return Bundle(
        metadata=metadata,
        config=file.name,
        network=network,
        preprocessing=preprocessing,
        is_columns_first=reads_columns_first(plain),
        inferer=inferer,
        plain=plain,
    )


def formats(metadata: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """Return ``network_data_format`` of the inputs or the outputs; empty if not there.

    Raises
    ------
    ModelError
        If it is no mapping of mappings.
    """
    found: Any = metadata
    for name in ("network_data_format", side):
        found = found.get(name, {})
        if not isinstance(found, Mapping):
            raise ModelError(f"configs/{_METADATA}: {name} must be a mapping, got {found!r}")
    if not all(isinstance(one, Mapping) for one in found.values()):
        raise ModelError(f"configs/{_METADATA}: each of the {side} must be a mapping, got {found}")
    return dict(found)


def _read_files(folder: Path, config: str | None) -> tuple[dict[str, Any], dict[str, Any], Path]:
    from monai.bundle import ConfigParser

    configs = folder / "configs"
    there = sorted(p.name for p in configs.iterdir() if p.suffix in _SUFFIXES)
    file = _chosen(configs, there, config)
    try:
        parser = ConfigParser()
        parser.read_meta(str(configs / _METADATA))
        parser.read_config(str(file))
        parser.resolve_macro_and_relative_ids()  # other files are read, nothing is run
    except Exception as error:  # whatever a damaged file makes a parser raise
        raise ModelError(f"{file}: cannot be read as a bundle's config: {error}") from error
    raw = dict(parser.config)
    return dict(raw["_meta_"]), raw, file


def _chosen(configs: Path, there: list[str], config: str | None) -> Path:
    """File of the workflow; several of one name are not guessed between."""
    wanted = [config] if config else list(_WORKFLOWS)
    found = [[n for n in there if n == stem or Path(n).stem == stem] for stem in wanted]
    files = next((names for names in found if names), [])
    if _METADATA not in there or not files:
        lacking = _METADATA if _METADATA not in there else f"{wanted[0]}.json"
        raise ModelError(f"{configs}: no {lacking}; there are {', '.join(there) or 'no files'}")
    if len(files) > 1:
        raise ModelError(
            f"{configs}: {' and '.join(files)} are there; choose one with config={files[0]}"
        )
    return configs / files[0]


# -- without trust ------------------------------------------------------------------------
def _build_plain(folder: Path, config: PlainConfig, name: str, inputs: tuple[str, ...]) -> _Parts:
    network = config.entry(name)
    for target, where in classes_in(network, name):
        if not _full(target).startswith(_NETWORKS):
            config.note_class(target, where)
    build_preprocessing = plain_preprocessing(config, inputs)
    inferer = _plain_inferer(config)
    config.refuse_code()
    return _network(network, folder), build_preprocessing(), inferer


def _full(target: str) -> str:
    return target if "." in target else f"monai.networks.nets.{target}"


def _network(value: Any, folder: Path) -> Any:
    """Build a network's entry; parts of it are built first."""
    if isinstance(value, list):
        return [_network(item, folder) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: _network(item, folder) for name, item in value.items()}
    if is_disabled(value):
        return None
    arguments = {name: _network(item, folder) for name, item in arguments_of(value).items()}
    return build_network(_full(str(value["_target_"])), arguments, folder)


def _plain_inferer(config: PlainConfig) -> dict[str, Any]:
    """Read the settings of the inferer, which is not built."""
    value, where = config.follow(config.raw["inferer"], "inferer")
    if not isinstance(value, Mapping) or "_target_" not in value:
        return {"class": str(config.plain(value, where))}
    entry = config.plain({k: v for k, v in value.items() if k not in _INDIFFERENT}, where)
    target, name = str(entry["_target_"]), class_name(entry["_target_"])
    settings = arguments_of(entry)
    if not target.startswith("monai.inferers.") and target != name:
        config.note_class(target, where)
    elif name.startswith("SlidingWindow") and not settings.keys() <= set(_DECISIVE):
        unknown = [key for key in settings if key not in _DECISIVE]
        raise ModelError(f"{config.file}: {where}: {name} has no setting {', '.join(unknown)}")
    return {"class": name, **settings}


# -- with trust ---------------------------------------------------------------------------
def _build_trusted(folder: Path, config: PlainConfig, name: str, inputs: tuple[str, ...]) -> _Parts:
    """Let MONAI evaluate and build what is needed, with the bundle's folder on the import path."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(dict(config.raw))
    if "bundle_root" in config.raw:
        parser["bundle_root"] = str(folder)
    with _importable(folder):
        try:
            network = parser.get_parsed_content(name)
            preprocessing = parser.get_parsed_content("preprocessing")
            inferer = parser.get_parsed_content("inferer")
        except Exception as error:  # code of the bundle can raise anything
            raise ModelError(
                f"{config.file}: building the bundle fails: {type(error).__name__}: {error}"
            ) from error
    kind = type(inferer)
    is_monais = kind.__module__.startswith("monai.inferers.")
    settings = {key: getattr(inferer, key) for key in _DECISIVE if hasattr(inferer, key)}
    return (
        network,
        built_preprocessing(preprocessing, inputs, config.file),
        {"class": kind.__name__ if is_monais else f"{kind.__module__}.{kind.__name__}", **settings},
    )


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
