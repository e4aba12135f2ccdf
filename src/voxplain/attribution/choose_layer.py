"""Which layer a class activation map is taken at, and the list of those there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch

from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute, frozen
from voxplain.inference.pipeline import Passes, Pipeline, open_pipeline
from voxplain.inference.taps import Layer, Taps, record_layers
from voxplain.models.model import Model
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

Word = Literal["auto", "bottleneck", "last"]
WORDS: tuple[Word, ...] = get_args(Word)
_MOST_TRIED = 8


def check_layers(text: str) -> tuple[str, ...]:
    """Split names joined with ``+``.

    Raises
    ------
    MethodError
        If one is empty or comes twice.
    """
    names = tuple(text.split("+"))
    if not all(names) or any(name != name.strip() for name in names):
        raise MethodError(
            f"layers is {', '.join(WORDS)}, a layer's name, or names joined with '+'; got {text!r}"
        )
    if len(set(names)) < len(names):
        raise MethodError(f"layers names one layer twice: {text!r}")
    return names


def choice_passes(names: Sequence[str]) -> Passes:
    """Count the passes that `chosen_layers` takes: none where every layer is named."""
    n_words = sum(name in WORDS for name in names)
    return Passes(n_forward=(n_words > 0) + n_words, n_backward=n_words)


def chosen_layers(pipeline: Pipeline, names: Sequence[str]) -> list[str]:
    """Put a layer in place of each word.

    Parameters
    ----------
    pipeline
        Its first view's network is looked at; the others have layers of the same names.
    names
        Names of layers, or words; see `best_layers`.

    Returns
    -------
    list of str
        One layer a name.

    Raises
    ------
    MethodError
        If no layer fits a word, or two of the names mean the same layer.

    Notes
    -----
    `choice_passes` says how many passes; they are not counted in the pipeline. One window of
    normally distributed noise (seed 0) goes through the network, so the choice does not depend
    on the image.
    """
    has_words = any(name in WORDS for name in names)
    ran = network_layers(pipeline) if has_words else []
    found = [_chosen(pipeline, ran, name) if name in WORDS else name for name in names]
    if len(set(found)) < len(found):
        raise MethodError(f"layers {'+'.join(names)} names one layer twice: {', '.join(found)}")
    return found


def network_layers(pipeline: Pipeline) -> list[Layer]:
    """Layers of the first view's network, in the order in which they finish; one forward pass."""
    network = pipeline.model.network(0)
    with torch.no_grad():
        window = pipeline.plan.settings.size
        return record_layers(network, lambda: pipeline.forward(_noise(pipeline), 0), window)


def best_layers(ran: Sequence[Layer], word: str, *, is_dense: bool) -> list[str]:
    """Order the layers by how well they fit a word, best first.

    Parameters
    ----------
    ran
        Layers that ran.
    word
        ``bottleneck``: fewest cells but more than one; of those most channels; of those the
        last. ``last``: most cells, of those the last, outside the head. ``auto``: the
        bottleneck of a segmentation network; for a classifier the last layer with more than one
        cell, just before pooling.
    is_dense
        Whether the network segments.

    Notes
    -----
    Not looked at: layers that give the logits, or lie in a module that gives them and have as
    many channels; and layers inside another one with the same cells, such as the convolutions
    of a residual block.
    """
    usable = {
        layer.name: (n, layer.arrangement)
        for n, layer in enumerate(ran)
        if layer.arrangement is not None and not layer.is_output and not layer.is_in_head
    }
    outermost = {
        name: (n, found)
        for name, (n, found) in usable.items()
        if found.n_cells > 1
        and not any(
            other in usable and usable[other][1].cells == found.cells for other in _around(name)
        )
    }

    def rank(name: str) -> tuple[int, ...]:
        n, found = outermost[name]
        if word == "last":
            return found.n_cells, n
        if word == "auto" and not is_dense:
            return (n,)
        return -found.n_cells, found.n_channels, n

    return sorted(outermost, key=rank, reverse=True)


def _around(name: str) -> Iterator[str]:
    """Names of the modules around a layer."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _chosen(pipeline: Pipeline, ran: Sequence[Layer], word: str) -> str:
    """Return the best layer for a word that the logits depend on through its cells."""
    best = best_layers(ran, word, is_dense=pipeline.is_dense)[:_MOST_TRIED]
    name = _first_used(pipeline, best)
    if name is None:
        raise MethodError(
            f"{pipeline.info.name}: no layer for layers={word}: the network has no module inside "
            "it whose output is a feature map (batch, channels, cells…) or patch tokens with more "
            "than one cell that the logits depend on; name one, see voxplain layers --all"
        )
    return name


def _first_used(pipeline: Pipeline, names: Sequence[str]) -> str | None:
    if not names:
        return None
    with torch.enable_grad():
        leaf = _noise(pipeline).requires_grad_()
        with Taps(pipeline.model.network(0), names) as taps:
            logits = pipeline.forward_with_graph(leaf)
    places = taps.arrangements(1, pipeline.plan.settings.size)
    kept = [
        (name, output, place)
        for name, output, place in zip(names, taps.outputs, places, strict=True)
        if output.requires_grad
    ]
    if not kept:
        return None
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    gradients = torch.autograd.grad(logits, [a for _, a, _ in kept], weights, allow_unused=True)
    for (name, _, place), gradient in zip(kept, gradients, strict=True):
        if gradient is not None and bool(place.place(gradient).any()):
            return name
    return None


def _noise(pipeline: Pipeline) -> torch.Tensor:
    shape = (len(pipeline.info.channel_names), *pipeline.plan.settings.size)
    generator = torch.Generator().manual_seed(0)
    return pipeline.stack([torch.randn(shape, generator=generator)])


def layers(
    model: Model, image: Volume | None = None, *, size: Sequence[int] | None = None
) -> tuple[list[Layer], dict[str, str]]:
    """List the layers of a model's network, and which one each word of ``layers=…`` means.

    Parameters
    ----------
    model
        Any model family; the network of its first view is run.
    image
        Its prepared shape is the network's input where the model has no window.
    size
        Voxels along each axis, for a model that has no window.

    Returns
    -------
    layers : list of Layer
        In the order in which they finish.
    words : dict
        ``auto``, ``bottleneck`` and ``last`` → the layer's name; without those that none fits.

    Raises
    ------
    ModelError
        If neither the model nor the caller says how large the input is, or the network fails.

    Notes
    -----
    A few passes of one window of noise on the CPU; the model is not changed.
    """
    with _opened(model, image, size) as pipeline:
        found = network_layers(pipeline)
        words: dict[str, str] = {}
        for word in WORDS:
            best = best_layers(found, word, is_dense=pipeline.is_dense)[:_MOST_TRIED]
            name = _first_used(pipeline, best)
            if name is not None:
                words[word] = name
        return found, words


@contextmanager
def _opened(model: Model, image: Volume | None, size: Sequence[int] | None) -> Iterator[Pipeline]:
    compute = Compute("cpu")
    window = model.info.window
    if image is not None and size is None and window is None:
        with open_pipeline(model, image, compute) as pipeline:
            yield pipeline
        return
    if size is None and window is None:
        raise ModelError(
            f"{model.info.name} has no window, so its layers' sizes depend on the image: give an "
            "image (--image FILE) or a size (--size 96,96,96)"
        )
    if size is not None and window is not None:
        raise ModelError(
            f"{model.info.name} has windows of {window.size}; a size is for models without"
        )
    shape = tuple(size or ()) if window is None else window.size
    if len(shape) != model.info.rank or min(shape) < 1:
        raise ModelError(
            f"{model.info.name} needs {model.info.rank} positive lengths as size, got {shape}"
        )
    blank = Volume(
        np.zeros((len(model.info.channel_names), *shape), np.float32),
        Grid(shape, np.eye(len(shape) + 1)),
    )
    with torch.inference_mode(False), frozen(model.module, compute, model.info.rank):
        yield Pipeline(model, blank, compute)
