"""Pointwise scores of one class from logits, and the cotangent of their weighted sum."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from voxplain.errors import TargetError
from voxplain.models.model import Activation
from voxplain.space.box import Box

Score = Literal["logit", "probability", "log_odds", "margin"]
SCORES: tuple[str, ...] = get_args(Score)


def check_score(score: str, activation: Activation, n_classes: int) -> None:
    """Refuse a score that this output does not have.

    Raises
    ------
    TargetError
        If probabilities are asked of a model without an activation, or a comparison with
        other classes of a softmax over a single class.
    """
    if score == "logit":
        return
    if activation == "none":
        raise TargetError(
            f"score {score!r} needs an activation, and the model's is 'none'; use score 'logit' "
            "or name softmax or sigmoid in the model card"
        )
    if activation == "softmax" and n_classes == 1:
        raise TargetError(f"score {score!r} of a softmax over one class is constant")


def score_of(
    logits: torch.Tensor, index: int, score: Score, activation: Activation
) -> torch.Tensor:
    """Return the score of class `index` at each voxel.

    Parameters
    ----------
    logits
        (n_classes, ...).
    index
        Output channel.
    score
        logit: L_c. probability: p_c. log_odds: log p_c − log(1 − p_c), computed without
        forming p. margin: L_c − max of the other logits (softmax); L_c (sigmoid).
    activation
        What turns logits into probabilities.

    Returns
    -------
    torch.Tensor
        (...), differentiable.
    """
    own = logits[index]
    if score == "probability":
        return torch.sigmoid(own) if activation == "sigmoid" else torch.softmax(logits, 0)[index]
    if score == "logit" or activation == "sigmoid":
        return own
    others = torch.cat([logits[:index], logits[index + 1 :]])
    return own - (torch.logsumexp(others, 0) if score == "log_odds" else others.amax(0))


class ScoreCotangent:
    """Gradient of Σ_v weight(v)·score(v), computed window by window from the logits.

    Parameters
    ----------
    weights
        (*support.shape); zero means that the voxel does not count.
    support
        Box of the padded volume that holds all weights.
    index, score, activation
        See `score_of`.
    n_classes
        Output channels.
    logits
        (n_classes, *support.shape) at the input in question; None for score ``logit``, whose
        gradient does not depend on them.
    over
        (*support.shape) truth values: where `slope` looks; default where a weight is not zero.
    """

    def __init__(
        self, weights: torch.Tensor, support: Box, *, index: int, score: Score,
        activation: Activation, n_classes: int, logits: torch.Tensor | None,
        over: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.support: Box | None = support if bool(weights.any()) else None
        self._box = support
        self._weights = weights
        self._index = index
        self._score: Score = score
        self._activation: Activation = activation
        self._n_classes = n_classes
        self._logits = logits
        self._over = weights != 0 if over is None else over
        self.channels = slice(index, index + 1) if logits is None else slice(None)

    def touches(self, box: Box) -> bool:
        """Whether a weight lies in the box."""
        common = box.intersect(self._box)
        return common is not None and bool(self._weights[common.within(self._box)].any())

    def crop(self, box: Box) -> torch.Tensor:
        """Values on the box, zero outside the support; a logit's of its class alone."""
        n_channels = self._n_classes if self._logits is not None else 1
        values = self._weights.new_zeros((n_channels, *box.shape))
        common = box.intersect(self._box)
        if common is None:
            return values
        weights = self._weights[common.within(self._box)]
        inside = common.within(box)
        if self._logits is None:
            values[0][inside] = weights
            return values
        with torch.enable_grad():
            leaf = self._logits[(slice(None), *common.within(self._box))].detach()
            leaf.requires_grad_()
            total = (weights * score_of(leaf, self._index, self._score, self._activation)).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        values[(slice(None), *inside)] = gradient
        return values

    def slope(self) -> float:
        """Σ|C| / Σ|weight|: how much the score moves with the logits; 1 for a logit."""
        if self._logits is None:
            return 1.0
        total = 0.0
        for plane in range(self._box.start[0], self._box.stop[0]):
            box = Box((plane, *self._box.start[1:]), (plane + 1, *self._box.stop[1:]))
            over = self._over[box.within(self._box)]
            total += float((self.crop(box).abs() * over).sum(dtype=torch.float64))
        weight = float((self._weights.abs() * self._over).sum(dtype=torch.float64))
        return total / weight if weight else 0.0
