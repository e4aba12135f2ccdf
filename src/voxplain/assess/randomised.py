"""Networks with some layers' weights drawn anew, for as long as a ``with`` block lasts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from voxplain.errors import MethodError
from voxplain.inference.compute import Compute, frozen
from voxplain.inference.pipeline import Pipeline
from voxplain.models.model import Model
from voxplain.space.labelmap import nearest
from voxplain.space.volume import Volume

Statistics = Literal["reset", "keep"]


@dataclass(frozen=True)
class WeightLayer:
    """A module that holds weights of its own.

    Parameters
    ----------
    name
        Its name in the network of a view.
    kind
        Its class, e.g. ``Conv3d``.
    n_parameters
        Numbers in its own parameters; tied ones count where the network names them first.
    """

    name: str
    kind: str
    n_parameters: int


def networks_of(model: Model) -> list[nn.Module]:
    """Return the different networks of a model's views, in the order of the views."""
    return list({id(n): n for n in map(model.network, range(model.n_views))}.values())


def weight_layers(model: Model, image: Volume, compute: Compute) -> list[WeightLayer]:
    """List the layers that hold weights in the order in which the network uses them last.

    A layer is a module, at any depth, with parameters of its own or with running statistics.

    Parameters
    ----------
    model
        The network of its first view is run; those of other folds have the same layers.
    image
        As it was read; its first window is what runs.
    compute
        Device and type.

    Returns
    -------
    list of WeightLayer
        The last is the "top", next to the logits. A layer that does not take part in the pass
        (a head of deep supervision) is not among them.

    Raises
    ------
    MethodError
        If no layer is seen (scripted networks), or folds do not have the same layers.

    Notes
    -----
    One forward pass, not counted. A layer is used when its module runs, or when a tensor of
    its own enters a torch function: so a class token and the projections of an attention
    block, whose modules never run, are found too.
    """
    network = model.network(0)
    prepared = model.prepare(image)
    with torch.inference_mode(False), frozen(model.module, compute, model.info.rank):
        pipeline = Pipeline(model, prepared, compute)
        modules = {name: m for name, m in network.named_modules() if _own(m)}
        uses = _Uses(modules)
        handles = [
            m.register_forward_hook(uses.hook(name))
            for name, m in modules.items()
            if not m._modules  # a block ends later than its own weights are used
        ]
        try:
            with torch.no_grad(), uses:
                pipeline.forward(pipeline.stack([pipeline.clean(pipeline.plan.box(0))]), 0)
        finally:
            for handle in handles:
                handle.remove()
    if not uses.order:
        raise MethodError(
            f"{model.info.name}: no layer with weights was seen to run, so none can be drawn "
            "anew; a scripted network has to be given as Python modules"
        )
    _check_names(networks_of(model), list(uses.order))
    first = _first_owners(network)
    return [
        WeightLayer(
            name,
            type(modules[name]).__name__,
            sum(p.numel() for p in _parameters(modules[name]).values() if first[id(p)] == name),
        )
        for name in uses.order
    ]


@contextmanager
def randomised(
    model: Model, names: Sequence[str], seed: int, *, statistics: Statistics = "reset"
) -> Iterator[None]:
    """Lend the model with the weights of these layers drawn anew.

    Each layer draws on its own, on the CPU, from a generator of (seed, fold, name): the same
    weights whichever other layers are drawn, on any device. The global random state is kept.

    Parameters
    ----------
    model
        Any family; every network of its views is changed. Enter this before `open_pipeline`,
        which takes copies.
    names
        Layers by name, see `weight_layers`.
    seed
        At least 0.
    statistics
        Of batch normalisation: ``reset`` makes running means 0 and variances 1, as the
        layer's own rule says; ``keep`` leaves them as trained.

    Raises
    ------
    MethodError
        If a layer is not there, or a setting is out of range.

    Notes
    -----
    Rule: the module's own ``reset_parameters()``. So normalisation layers get scale 1 and
    offset 0, a PReLU slope 0.25. Parameters that this does not fill, and those of modules
    without it (class tokens, parametrised weights), get normal draws with the mean and the
    standard deviation that they have; a single number therefore stays as it is.

    A parameter that several layers share stays shared, and gets the draw of the layer that the
    network names first.

    Tensors are exchanged, never written to. On leaving, also after an error, each parameter
    has the very storage that it had. Memory: once more the weights of the layers named.

    References
    ----------
    Adebayo et al. 2018, arXiv 1810.03292 (which keeps no rule for normalisation layers).
    """
    if seed < 0:
        raise MethodError(f"a seed is a whole number of at least 0, got {seed}")
    if statistics not in get_args(Statistics):
        raise MethodError(f"statistics is reset or keep, got {statistics!r}")
    networks = networks_of(model)
    _check_names(networks, names)
    weights: list[tuple[nn.Parameter, torch.Tensor]] = []
    buffers: list[tuple[nn.Module, str, torch.Tensor]] = []
    for fold, network in enumerate(networks):
        first = _first_owners(network)
        draws = _Draws(dict(network.named_modules()), f"{seed}:{fold}")
        for name in dict.fromkeys(names):
            module = network.get_submodule(name)
            weights += [(p, draws.of(first[id(p)])[0][id(p)]) for p in _parameters(module).values()]
            if statistics == "reset":
                buffers += [(module, key, new) for key, new in draws.of(name)[1].items()]
    before = [(p, p.data) for p, _ in weights]
    kept = [(module, key, module._buffers[key]) for module, key, _ in buffers]
    try:
        for p, new in weights:
            p.data = new.to(p.device)
        for module, key, new in buffers:
            old = module._buffers[key]
            assert old is not None
            module._buffers[key] = new.to(old.device)
        yield
    finally:
        for p, data in before:
            p.data = data
        for module, key, old in kept:
            module._buffers[key] = old


class _Uses(TorchFunctionMode):
    """Notes when each layer is used last."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self._owner: dict[int, str] = {}
        for name, module in modules.items():
            for tensor in _own(module).values():
                self._owner.setdefault(id(tensor), name)
        self.order: dict[str, None] = {}

    def hook(self, name: str) -> Any:
        """Return a forward hook that notes the layer."""
        return lambda module, inputs, output: self._note(name)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors(result)):  # asking for a shape or a device is no use
            for tensor in _tensors((args, kwargs)):
                if id(tensor) in self._owner:
                    self._note(self._owner[id(tensor)])
        return result

    def _note(self, name: str) -> None:
        self.order.pop(name, None)
        self.order[name] = None


class _Draws:
    """New parameters, by id of the old one, and new buffers of the modules of a network."""

    def __init__(self, modules: dict[str, nn.Module], seed: str) -> None:
        self._modules = modules
        self._seed = seed
        self._made: dict[str, tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]] = {}

    def of(self, name: str) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]:
        """Return the draw of one module."""
        if name not in self._made:
            digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
            self._made[name] = _drawn(self._modules[name], int.from_bytes(digest[:8]) >> 1)
        return self._made[name]


def _drawn(module: nn.Module, seed: int) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]:
    shell = _shell(module, is_blank=True)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        reset = getattr(shell, "reset_parameters", None)
        if callable(reset) and _takes_nothing(reset):
            reset()
        new = {}
        for key, old in _parameters(module).items():
            made: torch.Tensor = _parameters(shell)[key]
            if bool(torch.isnan(made).any()):
                trained = old.detach().cpu()
                noise = torch.randn_like(trained)
                made = trained.mean() + trained.std(correction=0) * noise
            new[id(old)] = made.detach()
    return new, _statistics(shell)


def _shell(module: nn.Module, *, is_blank: bool) -> nn.Module:
    """Copy of a module on the CPU that shares no tensor with it; its own parameters NaN."""
    shell: nn.Module = module.__class__.__new__(module.__class__)
    state = {k: _copy(v) if isinstance(v, torch.Tensor) else v for k, v in vars(module).items()}
    parameters = {
        key: None
        if p is None
        else nn.Parameter(
            torch.full_like(_copy(p), torch.nan)
            if is_blank and (p.is_floating_point() or p.is_complex())
            else _copy(p),
            requires_grad=False,
        )
        for key, p in module._parameters.items()
    }
    buffers = {key: None if b is None else _copy(b) for key, b in module._buffers.items()}
    children = {
        key: None if child is None else _shell(child, is_blank=False)
        for key, child in module._modules.items()
    }
    vars(shell).update(state, _parameters=parameters, _buffers=buffers, _modules=children)
    return shell


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _takes_nothing(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's own parameters."""
    return {key: p for key, p in module._parameters.items() if p is not None}


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the running statistics of a normalisation layer."""
    if not hasattr(module, "reset_running_stats"):
        return {}
    return {key: b for key, b in module._buffers.items() if b is not None}


def _own(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**_parameters(module), **_statistics(module)}


def _first_owners(network: nn.Module) -> dict[int, str]:
    """Name of the first module that holds each parameter, by the parameter's id."""
    first: dict[int, str] = {}
    for name, module in network.named_modules():
        for p in _parameters(module).values():
            first.setdefault(id(p), name)
    return first


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _check_names(networks: Sequence[nn.Module], names: Sequence[str]) -> None:
    for network in networks:
        known = [name for name, module in network.named_modules() if _own(module)]
        for name in names:
            if name not in known:
                raise MethodError(
                    f"the network has no layer {name!r} with weights{nearest(name, known)}; "
                    "voxplain.assess.randomised.weight_layers lists them"
                )
