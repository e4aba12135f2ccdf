"""`load_model`: what lies in a folder decides which family of models it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from voxplain.errors import ModelError, all_faults
from voxplain.models.card_file import CARD, sentences
from voxplain.models.card_model import load_card
from voxplain.models.model import Activation, Model
from voxplain.models.parts import Parts
from voxplain.space.labelmap import nearest

TOTALSEG = "totalseg:"


def _folds(raw: Any) -> Literal["all"] | tuple[int, ...]:
    """Accept ``all``, ``0,1``, one number or a sequence of them."""
    if raw == "all":
        return "all"
    items = raw.split(",") if isinstance(raw, str) else [raw] if isinstance(raw, int) else raw
    try:
        return tuple(int(item) for item in items)
    except (TypeError, ValueError):
        raise ValueError(f"expected all, or folds such as 0,1, got {raw!r}") from None


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CardOptions(_Options):
    """A model card says everything itself."""


class NnUNetOptions(_Options):
    """How an nnU-Net is run.

    Parameters
    ----------
    folds
        ``all`` that are there, or some, e.g. ``0,1``: their logits are averaged.
    checkpoint
        ``final``, ``best`` or a file name.
    mirroring
        Average over mirrored copies, as nnU-Net predicts (eight passes a window in 3D).
    step
        Distance of windows, in windows.
    trainer
        Class that builds the network, where the checkpoint's is not found.
    """

    folds: Annotated[Literal["all"] | tuple[int, ...], PlainValidator(_folds)] = "all"
    checkpoint: str = "final"
    mirroring: bool = True
    step: float = Field(default=0.5, gt=0, le=1)
    trainer: str | None = None


class TotalSegOptions(_Options):
    """TotalSegmentator's tasks say everything themselves."""


class BundleOptions(_Options):
    """How a MONAI bundle is read.

    Parameters
    ----------
    config
        File in ``configs`` with the inference workflow; needed where several could be meant.
    activation
        What turns logits into probabilities; needed where the bundle does not tell.
    """

    config: str | None = None
    activation: Activation | None = None


@dataclass(frozen=True)
class _Family:
    """A family of models: what it looks like, its options and how it is loaded."""

    looks_like: str
    options: type[_Options]
    load: Callable[..., Model | Parts]


def _card(place: str, *, trust_code: bool) -> Model:
    path = Path(place)
    return load_card(path / CARD if path.is_dir() else path, trust_code=trust_code)


def _nnunet(place: str, *, trust_code: bool, **options: Any) -> Model:
    from voxplain.models.nnunet import load_nnunet

    return load_nnunet(Path(place), trust_code=trust_code, **options)


def _totalseg(place: str, *, trust_code: bool, **options: Any) -> Model | Parts:
    from voxplain.models.totalseg import load_totalseg

    return load_totalseg(place.removeprefix(TOTALSEG), **options)


def _bundle(place: str, *, trust_code: bool, **options: Any) -> Model:
    from voxplain.models.bundle import load_bundle

    return load_bundle(Path(place), trust_code=trust_code, **options)


FAMILIES = {
    "model card": _Family(f"a folder with {CARD} and weights, or that file", CardOptions, _card),
    "nnU-Net": _Family(
        "a results folder with plans.json, dataset.json and fold_0, or the Dataset… folder above",
        NnUNetOptions,
        _nnunet,
    ),
    "MONAI bundle": _Family(
        "a folder with configs/metadata.json, configs/inference.json and models/model.pt",
        BundleOptions,
        _bundle,
    ),
    "TotalSegmentator": _Family(
        f"{TOTALSEG}TASK, e.g. {TOTALSEG}total", TotalSegOptions, _totalseg
    ),
}


def load_model(
    path: str | os.PathLike[str], *, trust_code: bool = False, **options: Any
) -> Model | Parts:
    """Load a model of any family.

    Parameters
    ----------
    path
        Folder of a model card, an nnU-Net results folder, a MONAI bundle, or
        ``totalseg:TASK``.
    trust_code
        Allow code that comes with the model: a network class from outside MONAI and torch, the
        expressions of a bundle.
    options
        Settings of the family: `NnUNetOptions`, `BundleOptions`.

    Returns
    -------
    Model or Parts
        On the CPU, in evaluation mode.

    Raises
    ------
    TrustError
        If other code would have to be run.
    MissingExtraError
        If the family needs a package that is not installed.
    ModelError
        If there is no model, or its files are wrong or do not fit each other.
    """
    place = os.fspath(path)
    name = _family_of(place)
    family = FAMILIES[name]
    checked = _checked(name, family, options)
    return family.load(place, trust_code=trust_code, **checked.model_dump())


def _family_of(place: str) -> str:
    if place.startswith(TOTALSEG):
        return "TotalSegmentator"
    path = Path(place)
    if path.name == CARD or (path / CARD).is_file():
        return "model card"
    if _has_plans(path):
        return "nnU-Net"
    if (path / "configs").is_dir():
        return "MONAI bundle"
    if not path.is_dir():
        raise ModelError(f"no model: {place} is {'a file' if path.exists() else 'not there'}")
    names = sorted(item.name for item in path.iterdir())
    found = f"it holds {', '.join(names[:8]) or 'nothing'}{', …' * (len(names) > 8)}"
    families = "\n".join(f"  - {name}: {f.looks_like}" for name, f in FAMILIES.items())
    raise ModelError(f"{place}: no model there: {found}. A model is one of\n{families}")


def _has_plans(path: Path) -> bool:
    """Whether this is an nnU-Net results folder, a fold of one or the Dataset folder above."""
    folders = [path, *path.glob("*__*__*"), *([path.parent] if path.name[:5] == "fold_" else [])]
    return any((f / name).is_file() for f in folders for name in ("plans.json", "dataset.json"))


def _checked(name: str, family: _Family, options: Mapping[str, Any]) -> _Options:
    known = tuple(family.options.model_fields)
    for key in options:
        if key not in known:
            hint = nearest(key, known) if known else "; there is none"
            raise ModelError(f"{name}: no model setting {key!r}{hint}")
    try:
        return family.options.model_validate(dict(options))
    except ValidationError as error:
        raise ModelError(all_faults(f"{name} settings", sentences(error))) from None
