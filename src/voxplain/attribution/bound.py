"""Targets fixed to one image: their value and their cotangent at given logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from voxplain.attribution.scores import Score, ScoreCotangent, score_of
from voxplain.attribution.where import Predicted
from voxplain.errors import TargetError
from voxplain.inference.cotangent import Cotangent, DenseCotangent, SumCotangent
from voxplain.models.model import ModelInfo
from voxplain.space.box import Box

if TYPE_CHECKING:
    from voxplain.attribution.question import Question
    from voxplain.attribution.targets import ClassTarget


class BoundTarget(Protocol):
    """A target that knows its voxels.

    Contract: `support` (padded coordinates) holds every logit that the value depends on, None
    if there is none (an absent class); `is_fixed` says that the cotangent is the same for
    every input; `linearise` takes logits on the support; `unit` is that of the value.
    """

    name: str
    unit: str
    support: Box | None
    is_fixed: bool

    def describe(self) -> str:
        """One sentence for people."""

    def linearise(self, logits: torch.Tensor) -> tuple[float, Cotangent]:
        """Value and cotangent at logits (n_classes, *support.shape)."""


class BoundScore:
    """A class's score over a mask; see `ClassTarget` for the formulas."""

    def __init__(
        self,
        question: Question,
        name: str,
        index: int,
        target: ClassTarget,
        mask: torch.Tensor | None,
    ) -> None:
        self.name = name
        self.unit = "Dice" if target.reduction == "dice" else target.score.replace("_", " ")
        self._info = question.info
        self._index = index
        self._target = target
        self._inner = question.pipeline.inner
        self._dtype = question.pipeline.compute.dtype
        self._is_anew = False
        self._is_dense = question.pipeline.is_dense
        weighted = target.reduction == "weighted"
        if not question.pipeline.is_dense:
            mask = torch.ones(self._inner.shape, dtype=torch.bool)
        elif mask is None and isinstance(target.where, Predicted):
            self._is_anew = not target.where.hold and not weighted
            mask = (
                torch.ones(self._inner.shape, dtype=torch.bool)
                if weighted  # the probability stands in place of the predicted mask
                else question.predicted_mask(index)
            )
        assert mask is not None
        self.n_voxels = int(mask.sum())
        box = Box.around(mask.numpy())
        is_whole = self._is_anew or target.reduction == "dice"
        if box is None:
            box = Box.whole(mask.shape) if is_whole else None
        elif is_whole:
            box = Box.whole(mask.shape)
        self.support = None if box is None else box.shift(self._inner.start)
        self._weights = torch.zeros(0)
        if box is not None:
            self._weights = mask[box.slices].clone()
        if weighted and self.support is not None:
            probability = score_of(
                question.clean_logits(self.support), index, "probability", self._info.activation
            )
            self._weights = self._weights * probability
        linear = target.score == "logit" and target.reduction != "dice"
        self.is_fixed = linear and not self._is_anew

    @property
    def class_index(self) -> int:
        """Output channel of the class."""
        return self._index

    def describe(self) -> str:
        """One sentence for people."""
        target, name = self._target, self._info.class_names[self._index]
        score = target.score.replace("_", " ")
        if not self._is_dense:
            chosen = ", the class predicted" if target.class_name is None else ""
            return f"{score} of {name}{chosen}"
        if target.reduction == "dice":
            return f"soft Dice of the probability of {name} with the mask {target.where}"
        if target.reduction != "weighted":
            over = f"{self.n_voxels} voxels ({target.where})"
            return f"{target.reduction} of the {score} of {name} over {over}"
        return f"sum of the {score} of {name}, weighted by its probability ({target.where})"

    def linearise(self, logits: torch.Tensor) -> tuple[float, Cotangent]:
        """Value and cotangent at logits (n_classes, *support.shape)."""
        if self.support is None:
            return 0.0, SumCotangent([], self._info.n_classes)
        weights = self._predicted(logits) if self._is_anew else self._weights
        score: Score = "probability" if self._target.reduction == "dice" else self._target.score
        values = score_of(logits, self._index, score, self._info.activation).double()
        if self._target.reduction == "dice":
            inside = float((values * weights).sum())
            total = float(values.sum()) + float(weights.sum(dtype=torch.float64))
            if total == 0:
                raise TargetError(f"{self.name}: Dice of an empty mask and probability zero")
            value = 2 * inside / total
            factors = weights.to(self._dtype) * (2 / total) - value / total
        else:
            scale = 1.0
            if self._target.reduction == "mean":
                scale = 1.0 / max(1.0, float(weights.sum(dtype=torch.float64)))
            value = scale * float((values * weights).sum())
            factors = weights.to(self._dtype) * scale
        cotangent = ScoreCotangent(
            factors,
            self.support,
            index=self._index,
            score=score,
            activation=self._info.activation,
            n_classes=self._info.n_classes,
            logits=None if score == "logit" else logits,
            over=weights > 0 if self._target.reduction == "dice" else None,
        )
        return value, cotangent

    def _predicted(self, logits: torch.Tensor) -> torch.Tensor:
        return predicted_mask(logits, self._index, self._info)


class BoundCombination:
    """Σ factor·target; the parts may lie anywhere."""

    def __init__(
        self, name: str, terms: Sequence[tuple[float, BoundTarget]], n_classes: int
    ) -> None:
        self.name = name
        self._n_classes = n_classes
        self._terms = terms
        units = {term.unit for _, term in terms}
        self.unit = units.pop() if len(units) == 1 else "mixed"
        self.is_fixed = all(term.is_fixed for _, term in terms)
        self.absent = tuple(term.name for _, term in terms if term.support is None)
        self.support: Box | None = None
        for _, term in terms:
            if term.support is not None:
                box: Box = self.support or term.support
                self.support = box.union(term.support)

    def describe(self) -> str:
        """One sentence for people."""
        return " ".join(
            f"{'minus' if factor < 0 else 'plus'} {term.describe()}" for factor, term in self._terms
        ).removeprefix("plus ")

    def linearise(self, logits: torch.Tensor) -> tuple[float, Cotangent]:
        """Value and cotangent at logits (n_classes, *support.shape)."""
        value, parts = 0.0, []
        for factor, term in self._terms:
            if term.support is None or self.support is None:
                continue
            crop = logits[(slice(None), *term.support.within(self.support))]
            part, cotangent = term.linearise(crop)
            value += factor * part
            parts.append((factor, cotangent))
        return value, SumCotangent(parts, self._n_classes)


class BoundFunction:
    """A user's function of all stitched logits."""

    is_fixed = False
    unit = "value"

    def __init__(
        self, question: Question, name: str, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.name = name
        self.support: Box | None = question.pipeline.inner
        self._box = question.pipeline.inner
        self._function = function
        self._is_dense = question.pipeline.is_dense

    def describe(self) -> str:
        """One sentence for people."""
        return f"function {self.name} of the stitched logits"

    def linearise(self, logits: torch.Tensor) -> tuple[float, Cotangent]:
        """Value and cotangent at logits (n_classes, *support.shape)."""
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = self._function(leaf if self._is_dense else leaf.reshape(len(leaf)))
            if not isinstance(value, torch.Tensor):
                raise TargetError(
                    f"{self.name}: a target function returns one differentiable number, got "
                    f"{type(value).__name__}; return a tensor made from the logits"
                )
            if value.numel() != 1 or not value.requires_grad:
                raise TargetError(
                    f"{self.name}: a target function returns one differentiable number, got "
                    f"shape {tuple(value.shape)}, requires_grad={value.requires_grad}"
                )
            (values,) = torch.autograd.grad(value.reshape(()), leaf)
        return float(value.detach()), DenseCotangent(values, self._box)


def predicted_mask(logits: torch.Tensor, index: int, info: ModelInfo) -> torch.Tensor:
    """Voxels given to a class: argmax; logit > 0 where each class decides on its own."""
    return logits.argmax(0) == index if info.is_exclusive else logits[index] > 0
