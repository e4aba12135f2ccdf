"""What decides a training: a recipe, checked when it is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from voxplain.models.intensity import Percentiles, Step, ZScore
from voxplain.space.labelmap import BACKGROUND
from voxplain.space.windows import Blend
from voxplain.train.networks import NETWORKS
from voxplain.train.settings_file import Amp

Share = Annotated[float, Field(ge=0, le=1)]
Shape = tuple[PositiveInt, PositiveInt, PositiveInt]
NetworkName = Literal["swin_unetr", "unetr", "unet", "dynunet", "basic_unet"]


def _ras(letters: str) -> str:
    axes = ("LR", "PA", "IS")
    found = sorted(next((a for a in axes if letter in a), "") for letter in letters.upper())
    if found != sorted(axes):
        raise ValueError(f"expected one letter each of L/R, P/A and I/S, e.g. RAS, got {letters!r}")
    return letters.upper()


def _joined(raw: Any) -> Any:
    """Accept one name or id beside a list of them."""
    if not isinstance(raw, dict):
        return raw
    return {
        name: (labels if isinstance(labels, list | tuple) else [labels])
        for name, labels in raw.items()
    }


def _plain(step: Step) -> Step:
    """Refuse what a transform of the whole image cannot do."""
    if step.channels is not None:
        raise ValueError(f"{step.step}: a recipe changes every channel alike; remove channels")
    if isinstance(step, Percentiles) and step.over == "nonzero":
        raise ValueError("percentiles: a recipe takes them over all voxels; remove over: nonzero")
    return step


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkRecipe(_Part):
    """Which network is trained.

    Parameters
    ----------
    name
        One of `NETWORKS`.
    arguments
        Arguments of MONAI's class that replace or complete those of `NETWORKS`; channels,
        classes and the shape of the crops are filled in.
    """

    name: NetworkName = "unet"
    arguments: dict[str, Any] = Field(default_factory=dict)


class InputRecipe(_Part):
    """What an image becomes before the network sees it, in training and ever after.

    Parameters
    ----------
    orientation
        Direction of each array axis.
    spacing
        mm along each axis of `orientation`, by linear interpolation; None keeps the image's.
    intensity
        Steps in order, before the interpolation: ``clip``, ``scale``, ``zscore``,
        ``percentiles``, as in a model card, for all channels alike.
    """

    orientation: Annotated[str, AfterValidator(_ras)] = "RAS"
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    intensity: tuple[Annotated[Step, AfterValidator(_plain)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> InputRecipe:
        if any(isinstance(step, ZScore) and step.lengths for step in self.intensity):
            raise ValueError("zscore: give one mean and std for all channels, or neither")
        return self


class CropRecipe(_Part):
    """The windows that are trained on.

    Parameters
    ----------
    size
        Voxels along each axis; also the sliding window of validation and of the bundle.
    per_case
        Crops of each case in an epoch.
    foreground
        Share of crops around a voxel of a class other than the background.
    centre
        ``voxel``: any foreground voxel is as likely as any other. ``class``: a class is drawn
        first, each that the case has with the same chance, so that small structures are seen.
    to_foreground
        Cut each case to the bounding box of its voxels that are not zero after the intensity
        steps. Only in training.
    """

    size: Shape = (96, 96, 96)
    per_case: PositiveInt = 1
    foreground: Share = 0.5
    centre: Literal["voxel", "class"] = "voxel"
    to_foreground: bool = True


class AugmentationRecipe(_Part):
    """Random changes of a crop; each is made with its probability.

    Parameters
    ----------
    zoom, zoom_range
        Probability, and the range of factors; the crop keeps its shape.
    rotate90
        Probability of a quarter turn or two or three in the plane of the first two axes.
    shift, shift_range
        Probability of adding one number to all intensities, and its largest magnitude.
    """

    zoom: Share = 0.0
    zoom_range: tuple[PositiveFloat, PositiveFloat] = (1.3, 1.5)
    rotate90: Share = 0.0
    shift: Share = 0.0
    shift_range: NonNegativeFloat = 0.1


class LossRecipe(_Part):
    """What is made small.

    Parameters
    ----------
    name
        ``dice_ce``: Dice + cross entropy. ``ndice_focal``: normalised Dice + focal. Both of the
        softmax.
    over_batch
        Dice over the whole batch at once instead of the mean over its crops (dice_ce).
    by_rarity
        Weight of each class in the cross entropy 1 / sqrt(its voxels in the training cases),
        1 on average (dice_ce): structures of few voxels are learned sooner.
    smooth
        Added to the numerator and the denominator of Dice.
    reference_load
        Share of lesion voxels at which normalised Dice is Dice (ndice_focal).
    gamma
        Exponent of the focal loss (ndice_focal).
    """

    name: Literal["dice_ce", "ndice_focal"] = "dice_ce"
    over_batch: bool = False
    by_rarity: bool = False
    smooth: PositiveFloat = 1e-5
    reference_load: float = Field(default=0.001, gt=0, lt=1)
    gamma: NonNegativeFloat = 2.0


class OptimiserRecipe(_Part):
    """AdamW and its schedule.

    Parameters
    ----------
    learning_rate
        Highest rate.
    weight_decay
        Of AdamW.
    schedule
        ``cosine`` falls to 0 at the last step; ``constant``.
    warmup
        Share of the steps over which the rate rises linearly first.
    gradient_norm
        Gradients with a larger norm are scaled down to it; None leaves them.
    """

    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 1e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    gradient_norm: PositiveFloat | None = None


class ValidationRecipe(_Part):
    """How the best epoch is found.

    Parameters
    ----------
    every
        Epochs between two validations; the last epoch is always validated.
    share
        Share of the patients that are kept for it, where the data name no validation cases.
    overlap, blend
        Sliding windows of validation and of the bundle.
    """

    every: PositiveInt = 3
    share: float = Field(default=0.2, gt=0, lt=1)
    overlap: float = Field(default=0.25, ge=0, lt=1)
    blend: Blend = "constant"


class Recipe(_Part):
    """Everything that decides a training, besides the data.

    Parameters
    ----------
    name
        Name of the model in tables and reports.
    network, input, crop, augmentation, loss, optimiser, validation
        See their classes.
    classes
        Class → names or ids of the labels that are joined in it, with ``*`` and ``?`` for any
        letters; a label that is in no class becomes background. None takes every label of the
        data as a class.
    batch
        Crops in a step, of each process.
    epochs
        Passes over all cases.
    amp
        ``auto``: fp16 with a scaler of the loss on CUDA, off on a CPU; or ``fp16``, ``bf16``,
        ``off``.
    seed
        Of the first weights, the split, the order of the data and every random change.
    """

    name: str = Field(default="model", min_length=1)
    network: NetworkRecipe = NetworkRecipe()
    input: InputRecipe = InputRecipe()
    classes: Annotated[dict[str, tuple[str | int, ...]] | None, BeforeValidator(_joined)] = None
    crop: CropRecipe = CropRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()
    loss: LossRecipe = LossRecipe()
    optimiser: OptimiserRecipe = OptimiserRecipe()
    validation: ValidationRecipe = ValidationRecipe()
    batch: PositiveInt = 2
    epochs: PositiveInt = 250
    amp: Amp = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        faults = []
        if self.augmentation.rotate90 and self.crop.size[0] != self.crop.size[1]:
            faults.append(
                f"augmentation.rotate90 turns the first two axes into each other: crop.size "
                f"{self.crop.size} must be the same along both, or rotate90: 0"
            )
        low, high = self.augmentation.zoom_range
        if low > high:
            faults.append(f"augmentation.zoom_range rises, got {[low, high]}")
        filled = [n for n in self.network.arguments if n in NETWORKS[self.network.name].filled]
        if filled:
            faults.append(f"network.arguments: {', '.join(filled)} follow from the data")
        for name, labels in (self.classes or {}).items():
            if name == BACKGROUND:
                faults.append("classes: the background is what no class holds; leave it out")
            if not labels:
                faults.append(f"classes.{name}: name at least one label")
        if self.classes is not None and not self.classes:
            faults.append("classes: name at least one class, or leave it out")
        if faults:
            raise ValueError("\n".join(faults))
        return self
