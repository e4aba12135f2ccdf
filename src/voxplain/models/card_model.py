"""A torch network with the preprocessing that a model card, or Python, states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import nn

from voxplain.errors import ModelError, all_faults
from voxplain.models.card import Description, InputCard
from voxplain.models.card_file import read_card, sentences
from voxplain.models.intensity import IntensityStep, apply_steps
from voxplain.models.model import Activation, Model, ModelInfo, OutputKind
from voxplain.models.network import build_network
from voxplain.models.probe import probe
from voxplain.models.repeat import repeated
from voxplain.models.weights import find_weights, fit_weights, read_weights, weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.picture import RGB
from voxplain.space.resample import resample
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings

_SAME_SPACING = 1e-3


class CardModel(Model):
    """A ``torch.nn.Module`` with stated preprocessing; made by `load_card` and `wrap`.

    Parameters
    ----------
    info
        What voxplain must know.
    module
        Takes what `prepare` gives.
    settings
        Orientation, spacing, fixed size and intensity steps.
    """

    def __init__(self, info: ModelInfo, module: nn.Module, settings: InputCard) -> None:
        self.info = info
        self.module = module
        self.settings = settings

    def grid_of(self, image_grid: Grid) -> Grid:
        """Grid that `prepare` gives: reoriented, then resampled to the spacing or the size.

        The outer faces of the first voxels stay where they are. An axis whose spacing differs
        from the wanted one by less than 0.1 % is left alone, and so is the whole grid if all
        do: then no voxel is interpolated.
        """
        self._check_rank(image_grid)
        grid = image_grid
        if self.settings.orientation is not None and self.settings.orientation != grid.orientation:
            grid = grid.reorient(self.settings.orientation)
        own = np.asarray(grid.spacing)
        if self.settings.size is not None and self.settings.size != grid.shape:
            fitted = own * np.asarray(grid.shape) / np.asarray(self.settings.size)
            return grid.respace(fitted.tolist())
        if self.settings.spacing is not None:
            wanted = np.asarray(self.settings.spacing)
            wanted = np.where(np.abs(wanted / own - 1) < _SAME_SPACING, own, wanted)
            if not np.array_equal(wanted, own):
                return grid.respace(wanted.tolist())
        return grid

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return orientation, spacing, size and intensity steps, as in the card."""
        return self.settings.model_dump(mode="json", by_alias=True)

    def check_image(self, image: Volume) -> None:
        """Check rank and channels; say what to do about a slice, and grey against colour.

        Raises
        ------
        ModelError
            If they do not fit.
        """
        wanted = self.info.channel_names
        if self.info.rank == 2 and image.grid.rank == 3 and 1 in image.grid.shape:
            raise ModelError(
                f"one slice of a volume (shape {image.grid.shape}) for a 2D model: save it as a "
                "picture (PNG, TIFF) or array (NPY), rows and columns as the network knows them"
            )
        if len(wanted) == 1 and image.channels == RGB:
            raise ModelError(
                f"the model needs one grey channel ({wanted[0]}), the image is a colour picture "
                "(red, green, blue): save it as grey, e.g. with Pillow "
                "Image.open(FILE).convert('L').save(GREY)"
            )
        if wanted == RGB and image.n_channels == 1:
            raise ModelError(
                "the model needs a colour picture (red, green, blue), the image has one channel "
                f"({image.channels[0]}); if the network was trained on grey pictures in all "
                "three, write in its card input: {channels: [grey], repeat: 3}"
            )
        super().check_image(image)

    def prepare(self, image: Volume) -> Volume:
        """Image on the model's grid (linear interpolation) after the intensity steps.

        Raises
        ------
        ModelError
            If channels or rank do not fit.
        ImageError
            If an intensity step is undefined for the image.
        """
        self.check_image(image)
        named = replace(image, channels=self.info.channel_names)
        grid = self.grid_of(image.grid)
        placed = named if grid == image.grid else resample(named, like=grid)
        return apply_steps(placed, self.settings.steps_of_image)


def load_card(card_path: Path, *, trust_code: bool = False) -> CardModel:
    """Load a model from its card.

    Parameters
    ----------
    card_path
        A ``model.yaml``.
    trust_code
        Allow a network class from outside ``monai.networks`` and ``torch.nn``; modules in the
        card's folder can then be imported.

    Returns
    -------
    Model
        On the CPU, in evaluation mode, checked by one tiny forward pass.

    Raises
    ------
    TrustError
        If other code would have to be imported.
    ModelError
        If the card, the weights or the network is wrong or they do not fit each other.
    """
    card = read_card(card_path)
    folder = card_path.parent.resolve()
    module = build_network(
        card.network.target, card.network.arguments, folder, trust_code=trust_code
    )
    weights_path = find_weights(folder, card.weights)
    fit_weights(module, read_weights(weights_path), str(weights_path))
    module.eval()
    model = CardModel(_info(card, module), repeated(module, card.input).eval(), card.input)
    probe(model, card.input.size)
    return model


def wrap(
    module: nn.Module,
    *,
    classes: Sequence[str] | Mapping[int, str],
    channels: Sequence[str],
    repeat: int | None = None,
    window: WindowSettings | Sequence[int] | None = None,
    kind: OutputKind = "segmentation",
    activation: Activation = "softmax",
    rank: int | None = None,
    orientation: str | None = None,
    spacing: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    intensity: Sequence[IntensityStep | Mapping[str, Any]] = (),
    name: str | None = None,
    check: bool = True,
) -> Model:
    """Describe a torch module, so that voxplain can explain it.

    Parameters
    ----------
    module
        Maps (batch, channels, *spatial) to logits. It is neither copied nor changed.
    classes
        Names of the output channels, in order or by id (0, 1, 2, …).
    channels
        Names of the image's channels in order.
    repeat
        Number of copies of the one channel that the module takes, e.g. 3 for a network of
        colour pictures that sees grey ones.
    window
        Sliding windows, or only their shape in voxels (then the defaults of `WindowSettings`);
        None runs the whole image at once.
    kind
        ``segmentation`` or ``classification``.
    activation
        ``softmax``, ``sigmoid`` or ``none``.
    rank
        2 or 3 spatial axes; needed only where no other setting tells.
    orientation
        Direction of each array axis that the network expects, e.g. ``RAS``; None keeps the
        image's.
    spacing
        mm along each axis; None keeps the image's.
    size
        Fixed spatial shape in voxels that every image is resized to; None keeps the shape.
    intensity
        Steps in order, as in a card, e.g. ``[{"clip": [-1024, 1024]}]``, or step objects.
    name
        Name in tables and reports; default the module's class.
    check
        Compare the description with the network by one tiny forward pass. Turn it off only
        where a single pass is too much for this machine.

    Raises
    ------
    ModelError
        If the description contradicts itself or the network; all faults of the settings are
        in one message.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(module).__name__}")
    label = name or type(module).__name__
    given = {
        "name": label,
        "kind": kind,
        "input": {
            "channels": channels,
            "repeat": repeat,
            "rank": rank,
            "orientation": orientation,
            "spacing": None if spacing is None else tuple(spacing),
            "size": None if size is None else tuple(size),
            "intensity": tuple(intensity),
        },
        "window": _window(window),
        "activation": activation,
        "classes": classes,
    }
    try:
        description = Description.model_validate(given)
    except ValidationError as error:
        raise ModelError(all_faults(label, sentences(error))) from None
    fed = repeated(module, description.input)
    model = CardModel(_info(description, module), fed, description.input)
    if check:
        probe(model, description.input.size)
    return model


def _window(window: WindowSettings | Sequence[int] | None) -> dict[str, Any] | None:
    if window is None:
        return None
    return asdict(window) if isinstance(window, WindowSettings) else {"size": tuple(window)}


def _info(description: Description, module: nn.Module) -> ModelInfo:
    return ModelInfo(
        name=description.name,
        kind=description.kind,
        rank=description.rank,
        channel_names=description.input.channels,
        class_names=description.classes,
        activation=description.activation,
        window=None if description.window is None else description.window.settings(),
        sha256=weights_sha256(module),
    )
