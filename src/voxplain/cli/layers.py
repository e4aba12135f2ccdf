"""``voxplain layers``: where a class activation map can be taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from voxplain.inference.taps import Layer
    from voxplain.models import Model

EPILOG = """Examples

The layers worth a map, and which of them layers=auto, bottleneck and last mean:

voxplain layers unet

A classifier takes whole images, so it needs one, or a size:

voxplain layers densenet --image xray.png

Then a map at a layer, or at two, by name:

voxplain explain --model unet --image ct.nii.gz --method grad_cam --set layers=encoder.3

voxplain explain --model unet --image ct.nii.gz --method layer_cam --set layers=encoder.2+encoder.3"""  # noqa: E501


def layers(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of the model: a model card (model.yaml), an nnU-Net results folder or a "
            "MONAI bundle; or totalseg:TASK.",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Image whose prepared size the network gets, for a model without window. Repeat "
            "it for the channels.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N,N[,N]",
            help="Size that the network gets, in place of an image's.",
            show_default=False,
        ),
    ] = None,
    model_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of the model, e.g. folds=0. Repeatable.",
            show_default=False,
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Allow the model's folder to run code of its own."),
    ] = False,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="List every module: those inside another one with the same cells, and those "
            "that cannot be used, with the reason.",
        ),
    ] = False,
) -> None:
    """List the layers of a network that a class activation map can be taken at.

    One window of noise goes through the network. A layer is named by where it stands in it; its
    cells are the places of its feature map, a cell's size is in voxels of the model's grid. Few
    large cells say what, many small ones where.
    """
    from rich.console import Console

    from voxplain.attribution.choose_layer import layers as layers_of
    from voxplain.attribution.words import key_values
    from voxplain.models import Parts, load_model
    from voxplain.space import read_image

    lengths = _lengths(size)
    volume = None if image is None else read_image(image)
    loaded = load_model(model, trust_code=trust_code, **key_values(model_set or [], "--model-set"))
    console = Console(highlight=False)
    for part in loaded.models if isinstance(loaded, Parts) else (loaded,):
        found, words = layers_of(part, volume, size=lengths)
        console.print(_table(part, found, words, every=every))


def _lengths(text: str | None) -> tuple[int, ...] | None:
    from voxplain.errors import MethodError

    if text is None:
        return None
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise MethodError(f"--size takes lengths, e.g. --size 96,96,96; got {text!r}") from None


def _table(model: Model, found: list[Layer], words: dict[str, str], *, every: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    from voxplain.attribution.choose_layer import best_layers

    listed = set(best_layers(found, "last", is_dense=model.info.kind == "segmentation"))
    table = Table(title=f"{model.info.name}: layers in the order in which they finish")
    for title in ("layer", "type", "channels", "cells", "cell in voxels", "layers="):
        table.add_column(title, overflow="fold", no_wrap=title == "layer")
    for layer in found:
        if not every and layer.name not in listed:
            continue
        meant = ", ".join(word for word, name in words.items() if name == layer.name)
        place = layer.arrangement
        if place is None:
            row = ("", " × ".join(map(str, layer.shape)), "", layer.fault)
        else:
            cells = " × ".join(map(str, place.cells)) + (" tokens" if place.is_tokens else "")
            note = "the logits" if layer.is_output else meant
            cell = " × ".join(f"{n:.3g}" for n in layer.cell)
            row = (str(place.n_channels), cells, cell, note)
        table.add_row(*map(Text, (layer.name, layer.kind, *row)))
    return table
