"""The networks of an nnU-Net, one a fold, built as its trainer built them."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from voxplain.errors import ModelError, TrustError
from voxplain.models.nnunet_folder import ResultsFolder
from voxplain.models.weights import fit_weights

_TRUSTED = ("dynamic_network_architectures.", "torch.nn.")
_STANDARD = "nnUNetTrainer"


def build_networks(
    found: ResultsFolder,
    plans: Any,
    configuration: Any,
    n_heads: int,
    trainer: str | None,
    trust_code: bool,
) -> list[nn.Module]:
    """Build one network a fold, without deep supervision, with its weights.

    Parameters
    ----------
    found
        What the folder holds.
    plans, configuration
        nnU-Net's managers of the plans.
    n_heads
        Output channels.
    trainer, trust_code
        See `voxplain.models.nnunet.load_nnunet`.

    Raises
    ------
    ModelError
        If the trainer is not found, or weights do not fit the network.
    TrustError
        If the network or the trainer is code from elsewhere.
    """
    n_channels = len(found.dataset.get("channel_names") or found.dataset["modality"])
    overriding = _overriding_trainer(trainer or found.trainer, trust_code)
    networks = []
    for fold, weights in zip(found.folds, found.weights, strict=True):
        if overriding is None:
            network = _from_plans(configuration, n_channels, n_heads, trust_code)
        else:
            network = _from_trainer(overriding, plans, configuration, n_channels, n_heads)
        fit_weights(network, weights, f"fold_{fold}/{found.checkpoint}")
        networks.append(network.eval())
    return networks


def _from_plans(configuration: Any, n_channels: int, n_heads: int, trust_code: bool) -> nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name = configuration.network_arch_class_name
    arguments = configuration.network_arch_init_kwargs
    imported = configuration.network_arch_init_kwargs_req_import
    named = [name, *(arguments[key] for key in imported if arguments.get(key) is not None)]
    foreign = [one for one in named if not str(one).startswith(_TRUSTED)]
    if foreign and not trust_code:
        raise TrustError(
            f"loading this model would import {', '.join(map(str, foreign))} and run that code: "
            "plans.json names it, and it is not part of nnU-Net or torch.nn. Read it first; if "
            "you trust it, allow it with --trust-code (Python: trust_code=True)"
        )
    try:
        network = get_network_from_plans(
            name, arguments, imported, n_channels, n_heads, allow_init=False, deep_supervision=False
        )
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"plans.json: {name} cannot be built: {error}") from error
    assert isinstance(network, nn.Module)
    return network


def _from_trainer(
    trainer: Any, plans: Any, configuration: Any, n_channels: int, n_heads: int
) -> nn.Module:
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        network = build(plans, configuration, n_channels, n_heads, enable_deep_supervision=False)
    else:
        network = build(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            n_channels, n_heads, enable_deep_supervision=False,
        )  # fmt: skip
    if not isinstance(network, nn.Module):
        raise ModelError(f"{trainer.__name__} builds a {type(network).__name__}, not a network")
    return network


def _overriding_trainer(name: str, trust_code: bool) -> Any | None:
    """Class of a trainer that builds networks in its own way; None: from the plans.

    nnU-Net's own look-up imports every trainer there is, and fails where one of them needs a
    package that is broken; here only the file that defines the class is imported.
    """
    if name == _STANDARD:
        return None
    module, colon, class_name = name.partition(":")
    if not colon:
        module, class_name = _module_of(name), name
    elif not trust_code:
        raise TrustError(
            f"trainer={name} would import {module} and run its code. Read it first; if you "
            "trust it, allow it with --trust-code (Python: trust_code=True)"
        )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    try:
        trainer = getattr(import_module(module), class_name)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"the trainer {class_name} ({module}) cannot be imported: {error}. If it builds its "
            "network as nnU-Net does, give trainer=nnUNetTrainer"
        ) from error
    standard = nnUNetTrainer.build_network_architecture
    return None if trainer.build_network_architecture is standard else trainer


def _module_of(class_name: str) -> str:
    """Name the module of nnunetv2 that defines a trainer, found by reading, not by importing."""
    import nnunetv2

    root = Path(nnunetv2.__path__[0])
    for file in sorted((root / "training" / "nnUNetTrainer").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if f"class {class_name}" not in text:
            continue
        if any(isinstance(n, ast.ClassDef) and n.name == class_name for n in ast.parse(text).body):
            return ".".join((root.name, *file.relative_to(root).with_suffix("").parts))
    raise ModelError(
        f"the model was trained with {class_name}, which the installed nnunetv2 does not have. (a) "
        "If it builds its network as nnU-Net does, give trainer=nnUNetTrainer; (b) else put it "
        "where Python finds it and give trainer=package.module:Class with --trust-code"
    )
