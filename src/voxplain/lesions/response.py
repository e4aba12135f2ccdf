"""How a model answers to lesions that are put into healthy tissue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from voxplain.errors import LabelError, MethodError
from voxplain.inference.pipeline import Input, Pipeline
from voxplain.lesions.case import LesionCase
from voxplain.lesions.features import Row
from voxplain.lesions.insert import MOST_IRREGULAR, LesionShape, draw_lesion
from voxplain.lesions.intensity import LesionIntensity
from voxplain.lesions.places import healthy_places, label_of, tissue_on_image
from voxplain.records.lesion_tables import RESPONSE
from voxplain.regions.lesion import lesion_map
from voxplain.space.box import Box
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume

Progress = Callable[[int, int], None]

_BORDERS, _TEXTURES = 0x5E, 0x5F  # of the generators that draw them


@dataclass(frozen=True, eq=False)
class Inserted:
    """One image with one inserted lesion, as it is handed to `on_image`.

    Parameters
    ----------
    row
        Of the table.
    image
        On the grid of the case's image.
    mask
        (*image.grid.shape) the lesion's voxels.
    """

    row: Row
    image: Volume
    mask: NDArray[np.bool_]


def learn_intensity(case: LesionCase, *, from_truth: bool) -> LesionIntensity:
    """Learn what lesions look like from those of a case.

    Parameters
    ----------
    case
        Model, image, and truth where that is asked for.
    from_truth
        Learn from the true lesions, else from those that the model predicts.

    Raises
    ------
    LabelError
        If there is no lesion, or none with tissue around it.
    """
    grid = case.image.grid
    if not from_truth:
        predicted = [one for one in case.lesions if one.type in ("TP", "US", "FP", "lesion")]
        if not predicted:
            raise LabelError(
                f"{case.image.name}: the model predicts no {case.class_name} to learn from; learn "
                "from a truth, lower the threshold, or give an intensity model of another image"
            )
        labels = lesion_map(predicted, case.grid)
    elif case.truth is None:
        raise LabelError("learning from true lesions needs their mask; give a truth")
    else:
        labels = label_of(case, case.truth)
    mask = (resample_labels(labels, grid).layers != 0).any(axis=0)
    return LesionIntensity.learn(case.image, mask, tissue=tissue_on_image(case))


def response(
    case: LesionCase,
    intensity: LesionIntensity,
    *,
    diameters_mm: Sequence[float] = (3.0, 5.0, 8.0, 12.0),
    contrasts: Sequence[float] = (0.25, 0.5, 1.0, 1.5, 2.0),
    n_places: int = 5,
    margin_mm: float = 5.0,
    irregularity: float = 0.0,
    texture: bool = True,
    patient: str | None = None,
    progress: Progress | None = None,
    on_image: Callable[[Inserted], None] | None = None,
) -> pd.DataFrame:
    """Insert lesions of each diameter and contrast at healthy places, and ask the model.

    Parameters
    ----------
    case
        Model and image.
    intensity
        In the image's units; see `LesionIntensity.fitted`.
    diameters_mm
        Above 0.
    contrasts
        Factors of the intensity model's difference and texture. The row of contrast 0, the clean
        image, is always there.
    n_places
        Centres, the same for all diameters and contrasts.
    margin_mm
        Between the largest lesion and every predicted or true one.
    irregularity
        Of the border, 0 (balls) to 0.5.
    texture
        Draw the texture of real lesions too; the same for all contrasts of a lesion.
    patient
        What is the same for all scans of one patient; default the case's name.
    progress
        Called with the passes done and in all.
    on_image
        Called with each image that was made, in the order of the table.

    Returns
    -------
    pandas.DataFrame
        Columns `records.lesion_tables.RESPONSE`; places are numbered from 1, positions in RAS
        mm. Probabilities are over the voxels of the model's grid whose centre lies in the
        lesion, ``is_detected``: one of them counts as lesion.

    Raises
    ------
    LabelError
        If too few places fit, or channels differ from the image's.
    MethodError
        If a diameter, contrast or number is out of range.

    Notes
    -----
    Exact: the inserted image is prepared whole, since z-scores and percentiles depend on every
    voxel, and windows that hold a voxel of the lesion are run; others cannot change the result.
    Passes: those windows times the views for each place, diameter and contrast but 0, after one
    prediction of the clean image. Memory: two copies of the image.
    """
    check_questions(diameters_mm, contrasts, n_places, margin_mm, irregularity)
    pipeline, grid = case.pipeline, case.grid
    clean = case.logits
    largest = max(diameters_mm) / 2 * (1 + irregularity)
    places = healthy_places(case, n_places, largest, margin_mm)
    within = tissue_on_image(case)
    strengths = sorted({float(one) for one in contrasts} - {0.0})
    shapes = [
        (p, d, LesionShape.draw(
            grid.to_world(index).tolist(), diameter, irregularity,
            case.noise.generator(_BORDERS, p),
        ))
        for p, index in enumerate(places)
        for d, diameter in enumerate(diameters_mm)
    ]  # fmt: skip
    footprints = [_footprint(case, shape) for _, _, shape in shapes]
    windows = sum(len(pipeline.windows_for(case.padded(box))) for box, _ in footprints)
    total = windows * pipeline.model.n_views * len(strengths)
    before = pipeline.passes.total
    rows: list[Row] = []
    for (p, d, shape), (box, mask) in zip(shapes, footprints, strict=True):
        for contrast in (0.0, *strengths):
            logits, image = clean[(slice(None), *box.slices)], case.image
            if contrast:
                # a generator anew: one texture for all contrasts
                rng = case.noise.generator(_TEXTURES, p, d) if texture else None
                image = draw_lesion(
                    image, shape, intensity, contrast=contrast, rng=rng, within=within
                )
                logits = pipeline.logits(prepared_input(pipeline, image), case.padded(box))
            centre = [*shape.centre_mm, 0.0][:3]
            row = {
                "case": case.image.name,
                "patient": patient or case.image.name,
                "model": pipeline.info.name,
                "place": p + 1,
                **{f"{axis}_mm": mm for axis, mm in zip("xyz", centre, strict=True)},
                "diameter_mm": shape.diameter_mm,
                "contrast": contrast,
                **_answer(case, logits, mask),
            }
            rows.append(row)
            if on_image is not None and contrast:
                on_image(Inserted(row, image, shape.voxels(image.grid)))
            if progress is not None:
                progress(pipeline.passes.total, before + total)
    return pd.DataFrame(rows, columns=list(RESPONSE))


def prepared_input(pipeline: Pipeline, image: Volume) -> Input:
    """Prepare another image as the pipeline's own was, as an input of the pipeline.

    Parameters
    ----------
    pipeline
        Opened with an image on the same grid.
    image
        As it was read.

    Raises
    ------
    LabelError
        If preparation gives another grid than it gave for the pipeline's image: it depends on the
        intensities (cropping to non-zero voxels), and the change moved it.
    """
    prepared = pipeline.model.prepare(image)
    if not prepared.grid.matches(pipeline.image.grid):
        raise LabelError(
            f"the changed image is prepared to another grid ({prepared.grid.describe()}) than the "
            f"clean one ({pipeline.image.grid.describe()}): the model crops by intensity and the "
            "lesion changes the crop; insert lesions farther from the border of the body"
        )
    inner = pipeline.plan.inner()
    shape = (prepared.n_channels, *pipeline.plan.padded_shape)
    padded = torch.full(shape, pipeline.plan.settings.pad_value, dtype=pipeline.compute.dtype)
    padded[(slice(None), *inner.slices)] = torch.from_numpy(prepared.data).to(padded.dtype)

    def source(box: Box) -> torch.Tensor:
        return padded[(slice(None), *box.slices)]

    return source


def _answer(case: LesionCase, logits: torch.Tensor, mask: NDArray[np.bool_]) -> Row:
    """Columns of what the model says of the lesion's voxels."""
    inside = logits[:, torch.from_numpy(mask)]
    probability = case.probability(inside)
    return {
        "n_voxels": int(mask.sum()),
        "probability_mean": float(probability.mean(dtype=np.float64)),
        "probability_max": float(probability.max()),
        "is_detected": bool(case.detected(inside).any()),
    }


def _footprint(case: LesionCase, shape: LesionShape) -> tuple[Box, NDArray[np.bool_]]:
    """Smallest box of the model's grid that holds the lesion, and its voxels there."""
    near = shape.around(case.grid)
    assert near is not None  # the centre is a voxel of the grid
    mask = near[1] <= 0
    tight = Box.around(mask)
    assert tight is not None
    return tight.shift(near[0].start), mask[tight.slices]


def check_questions(
    diameters_mm: Sequence[float],
    contrasts: Sequence[float],
    n_places: int,
    margin_mm: float,
    irregularity: float,
) -> None:
    """Refuse settings of `response` that are out of range.

    Raises
    ------
    MethodError
        If one is.
    """
    if not diameters_mm or not all(np.isfinite(d) and d > 0 for d in diameters_mm):
        raise MethodError(f"diameters are one or more numbers above 0 mm, got {diameters_mm}")
    if not contrasts or not np.isfinite(contrasts).all() or not any(contrasts):
        raise MethodError(f"contrasts are one or more factors, not all 0, got {contrasts}")
    if n_places < 1 or not margin_mm >= 0:
        raise MethodError(
            f"places are at least 1 and the margin at least 0 mm, got {n_places} and {margin_mm}"
        )
    if not 0 <= irregularity <= MOST_IRREGULAR:
        raise MethodError(f"irregularity is 0 (balls) to {MOST_IRREGULAR}, got {irregularity}")
