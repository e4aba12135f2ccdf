"""Trivial maps of an image: what an explanation must beat to be worth its passes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.assess.average_mask import AverageMask
from voxplain.attribution.bound import BoundScore
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.space.labelmap import nearest
from voxplain.space.nifti import SUFFIXES
from voxplain.space.read import read_image
from voxplain.space.resample import resample
from voxplain.space.volume import Volume

Floats = NDArray[np.float64]

GIVEN = "given:"


class TrivialMap(NamedTuple):
    """What a map shows and how it is made.

    ``make`` returns (*image shape), or (n_targets, *image shape) where targets differ.
    """

    summary: str
    make: Callable[[Question, Mapping[str, AverageMask]], Floats]


def baseline_map(
    name: str, question: Question, *, averages: Mapping[str, AverageMask] | None = None
) -> Floats:
    """Make a trivial map for each target of a question.

    Parameters
    ----------
    name
        One of `BASELINES`, or ``given:FILE``: a map of another network (probability, score),
        NIfTI, picture or NPY with one channel. ``{case}`` in it stands for the image's name,
        ``{target}`` for the target's.
    question
        Its image, prepared, gives edges and intensities; its model the predicted masks.
    averages
        For ``average_mask``: a mean by the target's name (see
        `voxplain.assess.average_mask.average_masks`).

    Returns
    -------
    numpy.ndarray
        (n_targets, 1, *image shape) float64 on the model's grid, at least 0; scale as the map
        defines it.

    Raises
    ------
    MethodError
        If there is no such map, it does not fit the model or a target, or a given map holds
        values below 0 or several channels.
    ImageError
        If a given file cannot be read.
    GridError
        If a given NIfTI does not overlap the image.

    Notes
    -----
    No passes, but for the clean prediction, which ``prediction`` needs. A given NIfTI is
    interpolated linearly at the voxels of the model's grid and 0 outside of its own. A given
    picture or NPY does not say where it lies: it covers the image as it was read, so a smaller
    one is stretched.
    """
    if name.startswith(GIVEN):
        found = _given(name.removeprefix(GIVEN), question)
    elif name in BASELINES:
        found = BASELINES[name].make(question, averages or {})
    else:
        raise MethodError(f"no baseline {name!r}{nearest(name, (*BASELINES, f'{GIVEN}FILE'))}")
    shape = question.pipeline.image.grid.shape
    return np.array(np.broadcast_to(found, (len(question.targets), *shape)))[:, None]


def given_file(pattern: str, case: str, target: str) -> Path:
    """Return the file of a given map; ``{case}`` and ``{target}`` in the pattern are replaced."""
    return Path(pattern.replace("{case}", case).replace("{target}", target))


def edges(image: Volume) -> Floats:
    """Return the magnitude of the gradient by Sobel's filter, summed over channels.

    Parameters
    ----------
    image
        2D or 3D.

    Returns
    -------
    numpy.ndarray
        (*shape) intensity per mm: a ramp has its slope. At the border the image goes on.

    Notes
    -----
    With voxels of 1 mm, √rank / 2 times `skimage.filters.sobel`, which divides by √rank and not by
    the two voxels between the neighbours.
    """
    total = np.zeros(image.grid.shape)
    for channel in image.data:
        squares = np.zeros(image.grid.shape)
        for axis, step in enumerate(image.grid.spacing):
            slope = ndimage.sobel(channel.astype(np.float64), axis, mode="nearest")
            # a central difference over two voxels, weights 1 2 1 along every other axis
            squares += (slope / (2 * 4 ** (image.grid.rank - 1) * step)) ** 2
        total += np.sqrt(squares)
    return total


def center(shape: Sequence[int]) -> Floats:
    """Return a Gaussian at the middle of the image, 1 at its top.

    Parameters
    ----------
    shape
        Of the image; the standard deviation is a quarter of each side.
    """
    found = np.ones(tuple(shape))
    for axis, n in enumerate(shape):
        places = (np.arange(n) - (n - 1) / 2) / (n / 4)
        found *= np.exp(-(places**2) / 2).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    return found


def _random(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    """Draw by the target's name, so that other targets do not change it."""
    what = zlib.crc32(b"random baseline map")
    shape = question.pipeline.image.grid.shape
    generators = [
        question.noise.generator(what, zlib.crc32(target.name.encode()))
        for target in question.targets
    ]
    return np.stack([generator.random(shape) for generator in generators])


def _edges(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    return edges(question.pipeline.image)


def _intensity(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    data = question.pipeline.image.data.astype(np.float64)
    axes = tuple(range(1, data.ndim))
    return np.asarray((data - data.min(axis=axes, keepdims=True)).sum(axis=0))


def _center(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    return center(question.pipeline.image.grid.shape)


def _prediction(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    info = question.info
    if not question.pipeline.is_dense:
        raise MethodError(
            f"{info.name} classifies whole images and predicts no mask; leave out the baseline "
            "prediction"
        )
    masks = []
    for target in question.targets:
        if not isinstance(target, BoundScore):
            raise MethodError(
                f"the baseline prediction is the mask of a target's class, and {target.name} has "
                "none; leave it out, or explain class:NAME"
            )
        masks.append(question.predicted_mask(target.class_index).numpy())
    return np.stack(masks).astype(np.float64)


def _average_mask(question: Question, averages: Mapping[str, AverageMask]) -> Floats:
    names = [target.name for target in question.targets]
    missing = [name for name in names if name not in averages]
    if missing:
        raise MethodError(
            f"the baseline average_mask has no mean for the target {', '.join(missing)}; give the "
            "structure's training cases, or leave it out"
        )
    image = question.image_grid
    grid = question.pipeline.image.grid
    maps = [Volume(averages[name].on(image)[None], image) for name in names]
    return np.stack([resample(one, grid, fill=0.0).data[0] for one in maps])


def _given(pattern: str, question: Question) -> Floats:
    image, maps = question.pipeline.image, []
    for target in question.targets:
        file = given_file(pattern, image.name, target.name)
        found = read_image(file)
        if found.n_channels != 1:
            raise MethodError(
                f"{file}: a given map has one channel, got {found.n_channels}; write one file a "
                "target and name it with {target}"
            )
        if found.data.min() < 0:
            raise MethodError(
                f"{file}: a given map is at least 0 (a probability or a score), its smallest value "
                f"is {found.data.min():g}"
            )
        if not file.name.lower().endswith(SUFFIXES):
            found = found.with_data(found.data, question.image_grid.resize(found.grid.shape))
        maps.append(resample(found, image.grid, fill=0.0).data[0].astype(np.float64))
    return np.stack(maps)


BASELINES: Mapping[str, TrivialMap] = MappingProxyType(
    {
        "random": TrivialMap("uniform random numbers", _random),
        "edges": TrivialMap("magnitude of the image's gradient (Sobel), per mm", _edges),
        "intensity": TrivialMap("prepared intensity above each channel's minimum", _intensity),
        "center": TrivialMap("a Gaussian at the middle of the image, ¼ of each side", _center),
        "prediction": TrivialMap("the mask that the model gives to the class", _prediction),
        "average_mask": TrivialMap("mean of the true masks of training cases", _average_mask),
    }
)
"""Trivial maps by name; ``given:FILE`` beside."""
