"""Targets: which number of the prediction is explained.

A `Target` is a description; `Question` binds it to a model and an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch

from voxplain.attribution.bound import BoundCombination, BoundFunction, BoundScore, BoundTarget
from voxplain.attribution.scores import SCORES, Score, check_score
from voxplain.attribution.where import Everywhere, Instance, Mask, Placed, Predicted, Voxel, Where
from voxplain.errors import TargetError
from voxplain.space.labelmap import nearest

if TYPE_CHECKING:
    from voxplain.attribution.question import Question

Reduction = Literal["sum", "mean", "weighted", "dice"]


class Target(Protocol):
    """A scalar of the stitched logits, by description.

    Contract: `name` is stable and unique within one run; `bind` raises `TargetError` for
    anything that this model or image does not have.
    """

    @property
    def name(self) -> str:
        """Name in tables and file names."""

    def bind(self, question: Question) -> BoundTarget:
        """Fix the target to a model and an image."""


@dataclass(frozen=True)
class ClassTarget:
    """Score of one class over some voxels.

    Parameters
    ----------
    class_name
        Name of an output channel. None: the class that the model predicts most often in
        `where` (background only if there is nothing else); of a classifier the class with the
        largest logit on the clean image, which for softmax and sigmoid is the most probable
        one. It is then held for every changed input.
    where
        Voxels that count; default the predicted mask of the class.
    score
        ``logit`` (default: softmax and sigmoid saturate, and their gradient dies),
        ``probability``, ``log_odds`` or ``margin`` (see `scores.score_of`).
    reduction
        ``sum``: Σ_v m(v)·s(v), with a predicted mask and logits Agg²Exp's f̂_c.
        ``mean``: that over Σ_v m(v).
        ``weighted``: Σ_v p_c(v)·s(v) with the clean input's probability p_c, held constant,
        in place of the predicted mask (or within a given one).
        ``dice``: soft Dice 2Σ p·m / (Σ p + Σ m) of the probability with the mask, over the
        whole image; `score` is then not used.
    label
        Name in tables; default made from the rest.

    Raises
    ------
    TargetError
        If a word is not one of those above.
    """

    class_name: str | None = None
    where: Where = field(default_factory=Predicted)
    score: Score = "logit"
    reduction: Reduction = "sum"
    label: str | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise TargetError(f"score is one of {', '.join(SCORES)}; got {self.score!r}")
        if self.reduction not in get_args(Reduction):
            raise TargetError(
                f"reduction is one of {', '.join(get_args(Reduction))}; got {self.reduction!r}"
            )
        needs_class = self.where == Predicted(hold=False) or isinstance(self.where, Instance)
        if self.class_name is None and needs_class:
            raise TargetError(f"a target over the {self.where} mask needs a class")
        if self.reduction == "weighted" and self.where == Predicted(hold=False):
            raise TargetError(
                "reduction 'weighted' puts the clean input's probability in place of the "
                "predicted mask, so there is no mask to take anew; use Predicted()"
            )

    @property
    def name(self) -> str:
        """Name in tables and file names, e.g. ``liver`` or ``liver@voxel:3,4,5[margin]``.

        The class that a classifier predicts is ``predicted``, whichever it is, so that the rows
        of many images can be put together; the description names the class.
        """
        if self.label is not None:
            return self.label
        parts = [] if self.class_name is None else [self.class_name]
        if self.where != Predicted() or self.class_name is None:
            parts.append(str(self.where))
        is_plain = self.score == "logit" or self.reduction == "dice"
        words: list[str] = [] if is_plain else [self.score]
        words += [self.reduction] if self.reduction != "sum" else []
        return "@".join(parts) + (f"[{','.join(words)}]" if words else "")

    def __sub__(self, other: Target) -> Difference:
        return Difference(self, other)

    def bind(self, question: Question) -> BoundTarget:
        """Fix the target to a model and an image."""
        info = question.info
        names = info.class_names
        if self.class_name is not None and self.class_name not in names:
            raise TargetError(f"no class {self.class_name!r}{nearest(self.class_name, names)}")
        check_score(self.score, info.activation, info.n_classes)
        if self.reduction in ("dice", "weighted"):
            check_score("probability", info.activation, info.n_classes)
        if not question.pipeline.is_dense:
            if not isinstance(self.where, (Predicted, Everywhere)):
                raise TargetError(
                    f"{self.name}: {info.name} classifies whole images, its targets are "
                    "class:NAME alone, or predicted"
                )
            if self.reduction != "sum":
                raise TargetError(
                    f"{self.name}: reduction {self.reduction!r} makes one number of many voxels, "
                    f"and {info.name} gives one number a class; leave the reduction out"
                )
            if self.class_name is None:
                index = int(question.prediction_logits.reshape(-1).argmax())
            else:
                index = names.index(self.class_name)
            return BoundScore(question, self.name, index, self, None)
        if self.class_name is None and isinstance(self.where, Predicted):
            raise TargetError(
                f"{self.name}: {info.name} predicts a class at every voxel, not one for the image; "
                f"name a class, e.g. class:{names[-1]}, or a place, e.g. mask:FILE or voxel:I,J,K"
            )
        mask = self._mask(question)
        if self.class_name is not None:
            index = names.index(self.class_name)
        else:
            assert mask is not None  # a predicted mask has a class
            index = question.dominant_class(mask)
        return BoundScore(question, self.name, index, self, mask)

    def _mask(self, question: Question) -> torch.Tensor | None:
        """Return the fixed mask on the model's grid; None where it follows from the prediction."""
        grid = question.pipeline.image.grid
        where = self.where
        if isinstance(where, Everywhere):
            return torch.ones(grid.shape, dtype=torch.bool)
        if isinstance(where, (Mask, Placed)):
            return torch.from_numpy(where.on(grid))
        if isinstance(where, Voxel):
            return torch.from_numpy(where.on(grid, question.image_grid))
        if isinstance(where, Instance):
            assert self.class_name is not None
            index = question.info.class_names.index(self.class_name)
            return torch.from_numpy(where.of(question.predicted_mask(index).numpy(), grid))
        return None


@dataclass(frozen=True)
class Difference:
    """One target minus another, e.g. the logit of liver minus that of spleen.

    Parameters
    ----------
    plus, minus
        The two targets.
    """

    plus: Target
    minus: Target

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.plus.name} minus {self.minus.name}"

    def bind(self, question: Question) -> BoundTarget:
        """Fix both targets to a model and an image."""
        terms = [(1.0, self.plus.bind(question)), (-1.0, self.minus.bind(question))]
        return BoundCombination(self.name, terms, question.info.n_classes)


@dataclass(frozen=True)
class FunctionTarget:
    """Any differentiable scalar of the stitched logits.

    Parameters
    ----------
    function
        Takes logits (n_classes, *shape of the model's grid; (n_classes,) for a classifier),
        returns a scalar tensor. Its gradient is kept whole: n_classes volumes of memory.
    name
        Name in tables and file names.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    name: str

    def bind(self, question: Question) -> BoundTarget:
        """Fix the target to an image."""
        return BoundFunction(question, self.name, self.function)


def named_classes(target: Target) -> list[str]:
    """Names of the classes that a target names; none of a voxel's or a function's."""
    if isinstance(target, Difference):
        return [*named_classes(target.plus), *named_classes(target.minus)]
    if isinstance(target, ClassTarget) and target.class_name is not None:
        return [target.class_name]
    return []
