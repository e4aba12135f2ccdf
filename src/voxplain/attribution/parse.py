"""Targets from text, for the command line and for short calls.

``all``                         every class over its predicted mask
``class:liver``                 one class over its predicted mask; of a classifier the class
``predicted``                   of a classifier: the class with the largest logit
``mask:FILE``                   the class predicted most in a mask, over that mask
``voxel:30,41,22``              the class predicted at a voxel of the image file
``class:liver@mask:FILE``       a class over a mask; ``FILE#name`` takes one region of a file
``class:liver@voxel:30,41,22``  a class at a voxel
``class:liver@instance:1``      the largest connected component of the predicted class
``class:liver@everywhere``      a class over the whole image
``class:liver@predicted_anew``  its predicted mask, taken anew at every noisy input
``A minus B``                   difference of two of these
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxplain.attribution.scores import Score
from voxplain.attribution.targets import ClassTarget, Difference, Reduction, Target
from voxplain.attribution.where import Everywhere, Instance, Mask, Predicted, Voxel, Where
from voxplain.errors import TargetError
from voxplain.space.read import read_labels


def targets_of(
    targets: str | Target | Sequence[str | Target],
    class_names: Sequence[str],
    *,
    score: Score = "logit",
    reduction: Reduction = "sum",
) -> list[Target]:
    """Return targets from texts and targets.

    Parameters
    ----------
    targets
        One or several; see the module for the texts.
    class_names
        Classes that ``all`` stands for, and whose bare names are refused with what to write.
    score, reduction
        For the targets made from text (see `ClassTarget`).

    Raises
    ------
    TargetError
        If a text is not understood, or nothing is asked for.
    """
    items = [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets
    wanted: list[Target] = []
    for item in items:
        if not isinstance(item, str):
            wanted.append(item)
        elif item.strip() == "all":
            wanted += [ClassTarget(name, score=score, reduction=reduction) for name in class_names]
        else:
            try:
                wanted.append(target_of(item, score=score, reduction=reduction))
            except TargetError as error:
                same = [name for name in class_names if name.lower() == item.strip().lower()]
                if not same:
                    raise
                raise TargetError(
                    f"{item!r} is not a target; did you mean class:{same[0]}?"
                ) from error
    if not wanted:
        raise TargetError("no target was asked for; use 'all' or e.g. 'class:NAME'")
    return wanted


def target_of(text: str, *, score: Score = "logit", reduction: Reduction = "sum") -> Target:
    """Return one target from its text.

    Raises
    ------
    TargetError
        If the text is not understood.
    """
    first, minus, second = text.partition(" minus ")
    if minus:
        return Difference(
            target_of(first, score=score, reduction=reduction),
            target_of(second, score=score, reduction=reduction),
        )
    name, where = None, text.strip()
    if where.startswith("class:"):
        name, _, where = where.removeprefix("class:").partition("@")
        if not name:
            raise TargetError(f"{text!r} names no class; write class:NAME")
    elif where == "predicted":
        where = ""
    elif where == "":
        raise TargetError("a target over the predicted mask needs a class; write class:NAME")
    return ClassTarget(name, _where(where, text), score, reduction)


def _where(text: str, whole: str) -> Where:
    kind, _, value = text.partition(":")
    if text == "":
        return Predicted()
    if text == "predicted_anew":
        return Predicted(hold=False)
    if text == "everywhere":
        return Everywhere()
    if kind == "mask" and value:
        path, _, region = value.partition("#")
        return Mask(read_labels(path), region or None, name=_stem(path))
    try:
        if kind == "voxel":
            return Voxel(tuple(int(i) for i in value.split(",")))
        if kind == "instance":
            return Instance(int(value))
    except ValueError as error:
        raise TargetError(f"{whole!r}: {kind} takes whole numbers, got {value!r}") from error
    raise TargetError(
        f"{whole!r} is not a target; write all, class:NAME, predicted, mask:FILE, voxel:I,J,K, "
        "class:NAME@mask:FILE, class:NAME@voxel:I,J,K, class:NAME@instance:N, "
        "class:NAME@everywhere or class:NAME@predicted_anew, or two of them with ' minus ' between"
    )


def _stem(path: str) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")
