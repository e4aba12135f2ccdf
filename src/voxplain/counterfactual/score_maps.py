"""What each method says of a slice, pixel by pixel: maps of attribution methods, and intensity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.attribution.ask import ask
from voxplain.attribution.cam import LayerCam
from voxplain.attribution.choose_layer import layers
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.rise import Rise
from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.targets import ClassTarget
from voxplain.attribution.words import methods_of, settings_in
from voxplain.counterfactual.classifier import ABNORMAL, AbnormalLogit, Classifier
from voxplain.counterfactual.slices import Slices
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models.card_model import wrap
from voxplain.models.model import Activation, Model
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

Progress = Callable[[str, int, int], None]
"""Called with what is being made, slices done, and slices in all."""

STAGES = "layer_cam@stages"
"""Text that stands for LayerCAM at each resolution of the classifier, and fused from all."""
INTENSITY, INTENSITY_DARK = "intensity", "intensity-dark"
"""Names of the pictures themselves as maps, of bright and of dark lesions."""


@dataclass(frozen=True, eq=False)
class ScoreMaps:
    """One method's maps.

    Parameters
    ----------
    values
        (n, rows, columns) float32, at least 0; scale as the method defines it.
    seconds
        Time they took.
    n_forward, n_backward
        Passes of one slice through the classifier.
    """

    values: NDArray[np.float32]
    seconds: float
    n_forward: int = 0
    n_backward: int = 0


def expand_methods(
    texts: Sequence[str], classifier: Classifier, size: tuple[int, int]
) -> dict[str, Method]:
    """Methods of texts, by label; `STAGES` becomes one method a resolution and the fused one.

    The label is the name; of methods of one name it holds the settings that not all of them
    share: of ``rise:n=1000:keep=0.1`` and ``rise:n=1000:keep=0.5`` it is ``rise:keep=0.1``.

    Parameters
    ----------
    texts
        ``NAME[:KEY=VALUE]…`` as for `voxplain.attribution.words.methods_of`, and `STAGES`.
    classifier
        Its layers are looked at where `STAGES` is among the texts.
    size
        Rows and columns of its picture.

    Raises
    ------
    MethodError
        If a method or setting is unknown, or one comes twice.
    """
    plain = [text for text in texts if text != STAGES]
    asked = methods_of(plain, "evaluation.methods")
    if texts.count(STAGES) > 1:
        raise MethodError(f"evaluation.methods {STAGES} is given twice")
    found: dict[str, Method] = {}
    for text, label, method in zip(plain, _short(plain), asked.values(), strict=True):
        if label in found:
            raise MethodError(f"evaluation.methods {text} is given twice, with other words")
        found[label] = method
    if STAGES in texts:
        stages = stage_layers(classifier, size)
        for cells, name in stages.items():
            found[f"layer_cam@{cells}"] = LayerCam(layers=name)
        if len(stages) > 1:
            found["layer_cam@fused"] = LayerCam(layers="+".join(stages.values()))
    return found


def _short(texts: Sequence[str]) -> list[str]:
    """Return labels of texts: the name, and the settings that not all of that name share."""
    alike: dict[str, list[set[str]]] = {}
    for text in texts:
        alike.setdefault(text.partition(":")[0], []).append(set(settings_in(text)))
    shared = {name: set.intersection(*settings) for name, settings in alike.items()}
    return [
        ":".join([name, *(one for one in settings_in(text) if one not in shared[name])])
        for text in texts
        for name in [text.partition(":")[0]]
    ]


def stage_layers(classifier: Classifier, size: tuple[int, int]) -> dict[str, str]:
    """Return the last layer of each resolution of the classifier, finest first.

    Parameters
    ----------
    classifier
        Its network is run once on noise.
    size
        Rows and columns of its picture.

    Returns
    -------
    dict
        Cells, e.g. ``16x16``, to the layer's name.

    Raises
    ------
    MethodError
        If no layer gives a map of more than one cell.
    """
    ran, _ = layers(classifier.as_model(size), size=size)
    last: dict[tuple[int, ...], str] = {}
    for layer in ran:
        place = layer.arrangement
        if place is not None and place.n_cells > 1 and not (layer.is_output or layer.is_in_head):
            last[tuple(place.cells)] = layer.name
    if not last:
        raise MethodError(
            f"{classifier.name}: {STAGES} needs a layer with a map of more than one cell, and "
            "there is none; see voxplain layers --all"
        )
    order = sorted(last, key=lambda cells: -int(np.prod(cells)))
    return {"x".join(map(str, cells)): last[cells] for cells in order}


def score_maps(
    classifier: Classifier,
    slices: Slices,
    methods: Mapping[str, Method],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 16,
    progress: Progress | None = None,
) -> Iterator[tuple[str, ScoreMaps]]:
    """Yield each method's maps of all slices: what speaks for ``abnormal``.

    Parameters
    ----------
    classifier
        Comes back unchanged, on the device that it was on.
    slices
        To explain.
    methods
        By label, see `expand_methods`.
    seed
        Of methods that draw; draws depend on the picture, not on its place among the slices.
    device
        To run on.
    batch
        Pictures in one pass; no result depends on it.
    progress
        Called after each slice.

    Yields
    ------
    tuple
        Label and maps: the positive part of contributions and localisations, the magnitude of
        sensitivities.

    Notes
    -----
    The target is the logit of abnormal; RISE and Score-CAM with weights ``probability`` explain
    the probability, as in the paper. Score-CAM, which multiplies the picture by masks, is given
    pictures in [0, 1], so that what a mask removes is air (the paper multiplies [−1, 1], so that
    what is removed turns mid-grey). For the others name air as the fill: ``fill=-1``.
    """
    size: tuple[int, int] = slices.images.shape[2:]
    compute = Compute(str(device), batch_size=batch)
    grid = Grid(size, np.eye(3))
    for label, method in methods.items():
        model, target, is_unit = _asked(classifier, method, size)
        values = np.zeros((len(slices), *size), np.float32)
        seconds, n_forward, n_backward = 0.0, 0, 0
        for i, image in enumerate(slices.images):
            data = (image + 1) / 2 if is_unit else image
            volume = Volume(np.ascontiguousarray(data, np.float32), grid, ("picture",))
            with open_pipeline(model, volume, compute) as pipeline:
                question = ask(pipeline, volume, target, None, seed)
                maps = compute_maps(question, method)
                passes = pipeline.passes
            values[i] = _positive(maps)
            seconds += maps.seconds
            n_forward, n_backward = passes.n_forward, passes.n_backward
            if progress is not None:
                progress(label, i + 1, len(slices))
        yield label, ScoreMaps(values, seconds, n_forward, n_backward)


def intensity_maps(slices: Slices) -> dict[str, NDArray[np.float32]]:
    """Return what needs no classifier, (n, rows, columns) each, by name.

    `INTENSITY`: (x + 1)/2 inside the organ and 0 outside; `INTENSITY_DARK`: (1 − x)/2 there, for
    lesions that are darker than the organ. Padding is outside of every organ.
    """
    where, images = slices.organ & slices.inside, slices.images[:, 0]
    return {
        name: np.where(where, (1 + sign * images) / 2, 0).astype(np.float32)
        for name, sign in ((INTENSITY, 1), (INTENSITY_DARK, -1))
    }


class _Probability(nn.Module):
    """The probability of abnormal as the one number of the network, so that masks run in batches.

    A target that is linear in what the network gives is run many inputs at a time.
    """

    def __init__(self, network: AbnormalLogit) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.network(images)).sigmoid()


def _asked(
    classifier: Classifier, method: Method, size: tuple[int, int]
) -> tuple[Model, ClassTarget, bool]:
    """Model and target that a method is asked about, and whether its pictures are in [0, 1]."""
    model, plain = classifier.as_model(size), ClassTarget(ABNORMAL)
    if isinstance(method, Rise):
        return _wrapped(_Probability(classifier.network), classifier, size, "none"), plain, False
    if isinstance(method, ScoreCam):
        own = classifier.network
        network = AbnormalLogit(
            own.module, own.index, own.is_exclusive, 2 * own.scale, own.shift - own.scale
        ).eval()
        target = replace(plain, score="probability") if method.weights == "probability" else plain
        return _wrapped(network, classifier, size, "sigmoid"), target, True
    return model, plain, False


def _wrapped(
    network: nn.Module, classifier: Classifier, size: tuple[int, int], last: Activation
) -> Model:
    return wrap(
        network, classes=[ABNORMAL], channels=["picture"], kind="classification",
        activation=last, rank=2, size=size, name=classifier.name,
    )  # fmt: skip


def _positive(maps: Maps) -> NDArray[np.float32]:
    values = maps.magnitude() if maps.kind == "sensitivity" else maps.signed().clip(min=0)
    return np.asarray(values[0], np.float32)
