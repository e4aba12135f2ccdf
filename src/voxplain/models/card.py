"""What a model card ``model.yaml`` can say: its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    StrictStr,
    model_validator,
)

from voxplain.models.intensity import Step, ZScore
from voxplain.space.labelmap import nearest
from voxplain.space.windows import Blend, Scheme, WindowSettings

_AXES = ("LR", "PA", "IS")


def _names(raw: Any) -> Any:
    """Accept ``{0: name, …}`` with ids 0, 1, 2, … beside a list of names."""
    if not isinstance(raw, Mapping):
        return raw
    ids = list(raw)
    missing = sorted(set(range(len(ids))) - set(ids))
    if missing:
        raise ValueError(f"class ids are 0, 1, 2, … without a gap, got {ids}: no {missing[0]}")
    return [raw[i] for i in range(len(ids))]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated or not names:
        raise ValueError(f"{repeated[0]!r} is named twice" if repeated else "name at least one")
    return names


def _orientation(letters: str) -> str:
    axes = [next((a for a in _AXES if letter in a), "") for letter in letters.upper()]
    if sorted(axes) != sorted(_AXES[: len(axes)]) or len(axes) not in (2, 3):
        raise ValueError(
            f"expected one letter each of L/R, P/A and I/S (2D: without I/S), e.g. RAS, "
            f"got {letters!r}"
        )
    return letters.upper()


Names = Annotated[tuple[StrictStr, ...], AfterValidator(_distinct)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkCard(_Part):
    """Where the network comes from.

    Parameters
    ----------
    target
        Import path of a class or function that returns a ``torch.nn.Module``.
    arguments
        Its keyword arguments.
    """

    target: StrictStr = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    arguments: dict[str, Any] = Field(default_factory=dict)


class InputCard(_Part):
    """The image that the network was trained on.

    Parameters
    ----------
    channels
        Names of the image's channels in order.
    repeat
        Number of copies of the one channel that the network takes, e.g. 3 for a network of
        colour pictures that sees grey ones; None for a channel of the image each.
    rank
        2 or 3 spatial axes; needed only where nothing else tells.
    orientation
        Direction of each array axis, e.g. RAS; None keeps the image's.
    spacing
        mm along each axis of `orientation`; None keeps the image's.
    size
        Fixed shape in voxels that every image is resized to; None keeps the shape.
    intensity
        Steps in order, after the image was put on the model's grid. With `repeat` the last one
        may be a z-score with a mean and std for each copy; it is then a part of the network.
    """

    channels: Names
    repeat: int | None = Field(default=None, ge=2)
    rank: Literal[2, 3] | None = None
    orientation: Annotated[StrictStr, AfterValidator(_orientation)] | None = None
    spacing: tuple[PositiveFloat, ...] | None = Field(default=None, min_length=2, max_length=3)
    size: tuple[PositiveInt, ...] | None = Field(default=None, min_length=2, max_length=3)
    intensity: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> InputCard:
        if self.size is not None and self.spacing is not None:
            raise ValueError("give spacing or size, not both: one decides the other")
        for step in self.intensity:
            for name in step.channels or ():
                if name not in self.channels:
                    raise ValueError(
                        f"{step.step} names a channel that is not there: {name!r}"
                        f"{nearest(name, self.channels)}"
                    )
            if step is self.step_of_copies:
                continue
            if isinstance(step, ZScore) and step.lengths - {len(self.channels)}:
                raise ValueError(
                    f"zscore: expected one mean and std, or one for each of the "
                    f"{len(self.channels)} channels, got {step.mean} and {step.std}"
                    f"{self._of_copies(step)}"
                )
        if self.repeat is not None and len(self.channels) > 1:
            raise ValueError(
                f"repeat copies one channel, and {len(self.channels)} are named "
                f"({', '.join(self.channels)}); name the image's one channel"
            )
        return self

    @property
    def step_of_copies(self) -> ZScore | None:
        """The z-score whose numbers differ between the copies of the channel."""
        step = self.intensity[-1] if self.intensity else None
        if isinstance(step, ZScore) and step.lengths == {self.repeat} and step.over == "all":
            return step
        return None

    @property
    def steps_of_image(self) -> tuple[Step, ...]:
        """Steps before the channel is repeated."""
        return self.intensity if self.step_of_copies is None else self.intensity[:-1]

    def _of_copies(self, step: ZScore) -> str:
        if self.repeat is None:
            (n,) = step.lengths if len(step.lengths) == 1 else (0,)
            is_meant = len(self.channels) == 1 and n > 1
            return f"; if the network takes {n} copies of it: repeat: {n}" if is_meant else ""
        return (
            f"; numbers for each of the {self.repeat} copies need over: all, and the z-score to "
            "be the last step"
            if step.lengths == {self.repeat}
            else f", and as the last step one for each of the {self.repeat} copies"
        )


class WindowCard(_Part):
    """Sliding windows; see `voxplain.space.WindowSettings`."""

    size: tuple[PositiveInt, ...] = Field(min_length=2, max_length=3)
    overlap: float = Field(default=WindowSettings.overlap, ge=0, lt=1)
    blend: Blend = WindowSettings.blend
    scheme: Scheme = WindowSettings.scheme
    pad_value: float = Field(default=WindowSettings.pad_value, allow_inf_nan=False)

    def settings(self) -> WindowSettings:
        """Window settings of the card."""
        return WindowSettings(**self.model_dump())


class Description(_Part):
    """What a network is for: everything of a card but the network itself.

    Parameters
    ----------
    name
        Name in tables and reports.
    kind
        ``segmentation`` or ``classification``.
    input
        The image that the network was trained on.
    window
        Sliding windows; None runs the whole image at once.
    activation
        ``softmax``, ``sigmoid`` or ``none``.
    classes
        Names of the output channels, as a list or by id (0, 1, 2, …).
    """

    name: StrictStr = Field(min_length=1)
    kind: Literal["segmentation", "classification"]
    input: InputCard
    window: WindowCard | None = None
    activation: Literal["softmax", "sigmoid", "none"]
    classes: Annotated[Names, BeforeValidator(_names)]

    @model_validator(mode="after")
    def _check(self) -> Description:
        faults = []
        ranks = self._ranks()
        if not ranks:
            faults.append(
                "2D or 3D? Nothing tells: give input.rank, or one of window.size, "
                "input.orientation, input.spacing, input.size"
            )
        if len(set(ranks.values())) > 1:
            told = ", ".join(f"{name} has {rank}" for name, rank in ranks.items())
            faults.append(f"the number of spatial axes differs: {told}")
        if self.activation == "softmax" and len(self.classes) == 1:
            faults.append(
                "activation: softmax over one class is always 1; a single logit needs sigmoid"
            )
        if self.kind == "classification" and self.window is not None:
            faults.append(
                "window: a classifier sees the whole image; remove window (input.size sets a "
                "fixed input shape)"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return next(iter(self._ranks().values()))

    def _ranks(self) -> dict[str, int]:
        told = {
            "window.size": None if self.window is None else self.window.size,
            "input.orientation": self.input.orientation,
            "input.spacing": self.input.spacing,
            "input.size": self.input.size,
        }
        ranks = {} if self.input.rank is None else {"input.rank": self.input.rank}
        return ranks | {name: len(value) for name, value in told.items() if value is not None}


class Card(Description):
    """Everything that ``model.yaml`` says.

    Parameters
    ----------
    network
        Where the network comes from.
    weights
        File beside the card; None takes ``weights.safetensors``, ``.pt`` or ``.pth``.
    """

    network: NetworkCard
    weights: StrictStr | None = None
