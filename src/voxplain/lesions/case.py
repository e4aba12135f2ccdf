"""One image with its lesions, ready for questions about each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.bound import predicted_mask
from voxplain.attribution.question import Question
from voxplain.attribution.scores import check_score, score_of
from voxplain.attribution.targets import ClassTarget
from voxplain.attribution.where import Placed
from voxplain.errors import LabelError, ModelError, TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Pipeline, open_pipeline
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.records.finding import Finding, finding
from voxplain.regions.controls import control_regions
from voxplain.regions.instances import connectivity_of
from voxplain.regions.instances import instances as components
from voxplain.regions.lesion import Lesion
from voxplain.regions.matching import Rule, check_matching, find_lesions
from voxplain.regions.tissue import tissue_mask
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import BACKGROUND, LabelMap, nearest
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume

_STREAM = 0xC0  # of the generator that places control regions


@dataclass(frozen=True)
class LesionSettings:
    """Which voxels are lesions, and when two of them are the same.

    Parameters
    ----------
    class_name
        Output channel of the lesions; None: the only one beside the background.
    threshold
        Least probability of a lesion's voxel; None: where the model predicts the class.
    neighbours
        Of a voxel in its component: 6, 18 or 26 in 3D, 4 or 8 in 2D; None: 18, or 4.
    min_voxels, min_mm3
        Smaller components, predicted or true, are left out.
    rule
        How predicted and true lesions are compared; see `voxplain.regions.matching`.
    rule_threshold
        Of the rule.
    controls
        Healthy regions that are explained beside the lesions.
    margin_mm
        Least distance of a control region to every lesion, predicted or true.
    """

    class_name: str | None = None
    threshold: float | None = None
    neighbours: int | None = None
    min_voxels: int = 1
    min_mm3: float = 0.0
    rule: Rule = "overlap"
    rule_threshold: float = 0.1
    controls: int = 0
    margin_mm: float = 5.0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise TargetError(f"threshold is a probability between 0 and 1, got {self.threshold}")
        if self.controls < 0 or not 0 <= self.margin_mm < np.inf:
            raise LabelError(
                f"controls and margin_mm are at least 0, got {self.controls} and {self.margin_mm}"
            )
        check_matching(self.rule, self.rule_threshold, self.min_voxels, self.min_mm3)


class LesionCase:
    """A model, an image and its lesions; make it with `open_case`.

    Attributes
    ----------
    pipeline
        Model and prepared image. Boxes of lesions are in voxels of the prepared image,
        `pipeline.image`; `padded` gives the pipeline's own.
    image
        As it was read.
    class_index, class_name
        Output channel of the lesions.
    settings
        What decides which voxels are lesions.
    noise
        Random field of the case; depends on the seed and the image's values.
    """

    def __init__(
        self, pipeline: Pipeline, image: Volume, settings: LesionSettings, seed: int,
        truth: LabelMap | None, within: LabelMap | None,
    ) -> None:  # fmt: skip
        self.pipeline = pipeline
        self.image = image
        self.settings = settings
        self.class_name = lesion_class(pipeline.model, settings.class_name)
        self.class_index = pipeline.info.class_names.index(self.class_name)
        self.noise = NoiseField(seed, case=int(image.sha256()[:16], 16))
        self._truth = truth
        self._within = within
        if settings.threshold is not None:
            check_score("probability", pipeline.info.activation, pipeline.info.n_classes)

    @property
    def grid(self) -> Grid:
        """Grid of the prepared image, where lesions lie."""
        return self.pipeline.image.grid

    def padded(self, box: Box) -> Box:
        """Box of the pipeline (with its padding) of a box of the prepared image."""
        return box.shift(self.pipeline.inner.start)

    @cached_property
    def logits(self) -> torch.Tensor:
        """Stitched logits of the clean image, (n_classes, *grid.shape)."""
        return self.pipeline.logits(self.pipeline.clean, self.pipeline.inner)

    def probability(self, logits: torch.Tensor) -> NDArray[np.floating]:
        """Probability of the lesions' class from logits (n_classes, ...); (...).

        NaN everywhere for a model without an activation.
        """
        info = self.pipeline.info
        if info.activation == "none":
            return np.full(logits.shape[1:], np.nan)
        return np.asarray(score_of(logits, self.class_index, "probability", info.activation))

    def detected(self, logits: torch.Tensor) -> NDArray[np.bool_]:
        """Voxels that count as lesion: by the threshold, or as the model predicts; (...)."""
        if self.settings.threshold is None:
            return np.asarray(predicted_mask(logits, self.class_index, self.pipeline.info))
        return np.asarray(self.probability(logits) >= self.settings.threshold)

    @cached_property
    def truth(self) -> NDArray[np.bool_] | None:
        """True lesions on `grid`: every voxel with a label; None without truth."""
        if self._truth is None:
            return None
        return np.asarray((resample_labels(self._truth, self.grid).layers != 0).any(axis=0))

    @cached_property
    def lesions(self) -> list[Lesion]:
        """Predicted lesions, then missed ones, then control regions, on `grid`."""
        s, grid = self.settings, self.grid
        predicted = self.detected(self.logits)
        found = find_lesions(
            predicted, grid, self.truth, neighbours=s.neighbours, min_voxels=s.min_voxels,
            min_mm3=s.min_mm3, rule=s.rule, threshold=s.rule_threshold,
        )  # fmt: skip
        if s.controls:
            avoid = predicted if self.truth is None else predicted | self.truth
            found += control_regions(
                found, self.tissue, avoid, grid, n=s.controls, margin_mm=s.margin_mm,
                rng=self.noise.generator(_STREAM),
            )  # fmt: skip
        return found

    @cached_property
    def tissue(self) -> NDArray[np.bool_]:
        """Voxels of the body on `grid`, where healthy regions may lie."""
        mask = tissue_mask(self.image) if self._within is None else self._within
        return np.asarray((resample_labels(mask, self.grid).layers != 0).any(axis=0))

    def findings(self) -> tuple[Finding, ...]:
        """Coded remarks about truth and lesions."""
        found: list[Finding] = []
        if all(one.type == "TN" for one in self.lesions):
            how = f"p ≥ {self.settings.threshold:g}" if self.settings.threshold else "predicted"
            where = "and no truth was given"
            if self.truth is not None:
                where = "and no true one" + " on the model's grid" * (not self.truth.any())
            evidence = f"no voxel of {self.class_name} ({how}) in a component large enough, {where}"
            found.append(finding("VX108", "not applicable", evidence))
        if self._truth is not None and (evidence := self._resampled(self._truth)):
            found.append(finding("VX109", "tip", evidence))
        return tuple(found)

    def _resampled(self, truth: LabelMap) -> str:
        """Say what became of the truth on the model's grid; empty if there is nothing to say."""
        steps = connectivity_of(self.settings.neighbours, truth.grid.rank)
        there = components((truth.layers != 0).any(axis=0), truth.grid, connectivity=steps)
        whole = resample_labels(there, self.grid)
        n_all, n_left = len(there.names) - 1, len(np.unique(whole.layers[whole.layers > 0]))
        if truth.grid.matches(self.image.grid) and n_left == n_all:
            return ""
        return (
            f"the truth ({truth.grid.describe()}) was taken at the nearest voxels of the model's "
            f"grid ({self.grid.describe()}); {n_all - n_left} of its {n_all} lesions kept none"
        )

    @cached_property
    def _one_region(self) -> LabelMap:
        return LabelMap(np.zeros((1, *self.grid.shape), np.uint8), self.grid, {0: "image"})

    def question(self, lesions: list[Lesion]) -> Question:
        """Ask for the sum of the class's logits over each of some lesions.

        The one region is the whole image, so that shares are those of the channels.
        """
        targets = [
            ClassTarget(self.class_name, Placed(one.box, one.mask), label=one.name)
            for one in lesions
        ]
        question = Question(self.pipeline, targets, self.image.grid, self.noise, self._one_region)
        question.prediction_logits = self.logits  # stitched once for all lesions
        return question


def lesion_model(model: Model | Parts, class_name: str | None) -> Model:
    """Return the model that answers for the lesions' class, of a task in several parts.

    Raises
    ------
    TargetError
        If there are several parts and no class was named, or none has it.
    """
    if isinstance(model, Model):
        return model
    if class_name is None:
        raise TargetError(
            f"{model.name} is a task in {len(model.models)} models; name the class of the lesions "
            f"with --class: {', '.join(model.answers)}"
        )
    return model.owner(class_name)


def lesion_class(model: Model, name: str | None) -> str:
    """Return the output channel of the lesions.

    Raises
    ------
    TargetError
        If there is none of this name, or none was named and there are several.
    ModelError
        If the model classifies whole images.
    """
    info = model.info
    if info.kind != "segmentation":
        raise ModelError(
            f"{info.name} classifies whole images; lesions need a model that segments them"
        )
    if name is not None:
        if name not in info.class_names:
            raise TargetError(f"no class {name!r}{nearest(name, info.class_names)}")
        return name
    known = [c for i, c in enumerate(info.class_names)
             if c != BACKGROUND and not (i == 0 and info.is_exclusive)]  # fmt: skip
    if len(known) != 1:
        raise TargetError(
            f"{info.name} has {len(known)} classes beside the background; name that of the "
            f"lesions with --class: {', '.join(known)}"
        )
    return known[0]


@contextmanager
def open_case(
    model: Model,
    image: Volume,
    *,
    truth: LabelMap | None = None,
    within: LabelMap | None = None,
    settings: LesionSettings | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    on_pass: Callable[[int], None] | None = None,
) -> Iterator[LesionCase]:
    """Prepare an image, freeze the model, and give both back as they were on leaving.

    Parameters
    ----------
    model
        A segmentation model.
    image
        As it was read.
    truth
        True lesions, on any grid that overlaps the image; every label counts.
    within
        Where healthy regions may lie; default `tissue_mask` of the image.
    settings
        Which voxels are lesions.
    seed
        Of all draws.
    compute
        Device, precision, batch size.
    on_pass
        Called with the number of passes just done.

    Yields
    ------
    LesionCase
        Valid inside the ``with`` block.
    """
    chosen = settings or LesionSettings()
    lesion_class(model, chosen.class_name)
    connectivity_of(chosen.neighbours, model.info.rank)  # refused before anything is run
    with open_pipeline(model, image, compute or Compute()) as pipeline:
        if on_pass is not None:
            pipeline.on_pass = on_pass
        yield LesionCase(pipeline, image, chosen, seed, truth, within)
