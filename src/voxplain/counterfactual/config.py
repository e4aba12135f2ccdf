"""What ``config.yaml`` can say: every setting of a run, and what it may be."""

from __future__ import annotations

from math import lcm
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from voxplain.counterfactual.generator_config import ConditionalConfig, GeneratorConfig
from voxplain.models.intensity import FiniteRange, rising
from voxplain.train.settings_file import Amp

Share = Annotated[float, Field(ge=0, le=1)]
Plane = Literal["axial", "coronal", "sagittal"]
Network = Literal["small", "resnet18", "efficientnet-b0", "densenet121"]


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= pair[1]:
        raise ValueError(f"expected [low, high] with low ≤ high, got {list(pair)}")
    return pair


Percentile = Annotated[float, Field(ge=0, le=100)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_rising)]
PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]


def _quoted(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004
            f"YAML reads {'yes, on or true' if value else 'no, off or false'} as a truth value; "
            "write the word in quotes"
        )
    return value


Written = Annotated[str | int | float, BeforeValidator(_quoted)]
"""A value of a table, as a word or a number."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobConfig(_Part):
    """Synthetic anomalies: x + a·g inside an organ, g = exp(−r²/2σ²), mask g > `mask_level`.

    Parameters
    ----------
    probability
        Of an anomaly in a slice that has room for one.
    radius_px
        Range of the radius where g falls to `mask_level`, in pixels of the picture.
    mask_level
        The truth is where g exceeds it.
    amplitude, amplitude_test
        Range of a, in shares of the intensity window, of training slices and of those of
        validation and test.
    sign
        ``bright`` adds, ``dark`` subtracts, ``both`` draws.
    elongation
        Range of the ratio of the two radii.
    distortion
        The grid is bent by up to this share of the radius, in half of the anomalies.
    min_organ_px
        Least area in pixels of the organ's component that one is put into.
    inside_only
        Cut the anomaly off where the organ ends.
    """

    probability: Share = 0.5
    radius_px: PositiveRange = (3.5, 5.0)
    mask_level: Annotated[float, Field(gt=0, lt=1)] = 0.25
    amplitude: ShareRange = (0.35, 0.9)
    amplitude_test: ShareRange = (0.6, 0.9)
    sign: Literal["bright", "dark", "both"] = "bright"
    elongation: PositiveRange = (1.0, 1.5)
    distortion: Share = 0.0
    min_organ_px: NonNegativeInt = 30
    inside_only: bool = False


class AbnormalConfig(_Part):
    """What makes a slice abnormal: exactly one of three.

    Parameters
    ----------
    synthetic
        Drawn anomalies.
    labels
        Names or numbers of labels: a slice with more than `min_pixels` pixels of them, counted
        in the image's own pixels.
    column
        Column of the manifest: a case whose value is not in `normal` is abnormal in all slices.
    min_pixels
        For `labels`.
    between
        For `labels`: slices with 1 to `min_pixels` pixels of them. They are left out, of every
        part; or ``normal``, as in the paper, whose normal slices then hold small lesions.
    normal
        For `column`: values that mean normal, words or numbers; 0, 0.0 and "0" are the same.
    """

    synthetic: BlobConfig | None = None
    labels: tuple[str | int, ...] = ()
    column: str | None = None
    min_pixels: NonNegativeInt = 100
    between: Literal["leave_out", "normal"] = "leave_out"
    normal: tuple[Written, ...] = ("normal",)

    @model_validator(mode="after")
    def _check(self) -> AbnormalConfig:
        given = [self.synthetic is not None, bool(self.labels), self.column is not None]
        if sum(given) != 1:
            raise ValueError("say what is abnormal by exactly one of synthetic, labels, column")
        return self


class IntensityConfig(_Part):
    """How intensities become [−1, 1]: a window, clipped at its ends.

    Parameters
    ----------
    window
        [low, high] of the image, e.g. HU; None takes percentiles.
    percentiles
        Of the foreground of training images.
    foreground
        Names, patterns or numbers of the labels whose voxels are the foreground; empty: every
        label, and all voxels where there are no labels.
    model
        Folder of a model whose preparation comes first: for an existing classifier, and for
        repairs that fill the images of a segmentation model. `window` and `percentiles` are
        then those of the prepared image.
    """

    window: FiniteRange | None = None
    percentiles: Annotated[tuple[Percentile, Percentile], AfterValidator(rising)] = (0.5, 99.5)
    foreground: tuple[str | int, ...] = ()
    model: str | None = None


class SplitConfig(_Part):
    """Which slices are learned from; used where the data does not say (column ``split``).

    Parameters
    ----------
    by
        ``patient``; or ``slices``: one block of neighbouring slices of each case, with gaps of
        `gap` slices. Blocks of one patient are alike, so results are too good: only for a try.
    validation, test
        Shares.
    gap
        Slices left out between blocks.
    """

    by: Literal["patient", "slices"] = "patient"
    validation: Share = 0.15
    test: Share = 0.15
    gap: NonNegativeInt = 2


class DataConfig(_Part):
    """Which slices, and how they are made.

    Parameters
    ----------
    plane
        Slices of volumes, upright as a reader expects them; pictures are taken as they are.
    size
        Rows and columns of the network's picture: slices keep their aspect ratio and are padded.
    pixel_mm
        Pixels are resampled to this size; None: the whole slice fits in.
    organ
        Names, patterns or numbers of labels that a slice must have, and that synthetic
        anomalies lie in; empty: every slice.
    min_organ_pixels
        A slice has more of them than this, in the image's own pixels.
    slices
        Only these slices of each case, by number from the feet, the left or the back; None: all.
    max_slices
        At most so many of a case, evenly spread; None: all.
    intensity, abnormal, split
        See there.
    """

    plane: Plane = "axial"
    size: tuple[PositiveInt, PositiveInt] = (64, 64)
    pixel_mm: PositiveFloat | None = None
    organ: tuple[str | int, ...] = ()
    min_organ_pixels: NonNegativeInt = 32
    slices: tuple[NonNegativeInt, ...] | None = None
    max_slices: PositiveInt | None = None
    intensity: IntensityConfig = IntensityConfig()
    abnormal: AbnormalConfig
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.abnormal.synthetic is not None and not self.organ:
            raise ValueError("organ: synthetic anomalies lie in an organ; name its labels")
        return self


class AugmentationConfig(_Part):
    """Random changes of training slices; what moves in from outside is the lowest intensity.

    Parameters
    ----------
    flip_lr, flip_ud
        Probabilities of mirroring.
    move
        Probability of the next three together.
    shift, scale, rotate_degrees
        Largest shift (share of the picture), change of scale (share), rotation.
    noise, blur_px, gain
        Largest standard deviation of noise (of [−1, 1]), of a blur, and change of contrast.
    """

    flip_lr: Share = 0.5
    flip_ud: Share = 0.0
    move: Share = 0.5
    shift: Share = 0.07
    scale: Share = 0.1
    rotate_degrees: NonNegativeFloat = 10.0
    noise: NonNegativeFloat = 0.05
    blur_px: NonNegativeFloat = 0.7
    gain: Share = 0.1


class ClassifierConfig(_Part):
    """The classifier that is explained, or the judge.

    Parameters
    ----------
    network
        Architecture to train.
    card
        Folder of an existing classifier instead; it is not trained. Its preparation must make
        the pictures: `IntensityConfig.model` names it, or a model that prepares images alike.
    abnormal_class
        Name of its abnormal class; None: its only class, or the second of two.
    seed
        Added to the run's, so that a judge is another network.
    steps, batch, learning_rate, weight_decay
        Of training, by Adam.
    schedule
        ``one_cycle``: the rate rises to `learning_rate` and falls to almost nothing; ``constant``:
        it stays.
    balanced
        Half of each batch is abnormal.
    validate_every
        Steps between validations; the best by AUROC is kept, of equal ones
        the last (an easy task reaches 1 long before the network is done).
    augmentation
        See there.
    calibrate
        Scale the logit by a temperature of at least 1, fitted on the validation slices.
    """

    network: Network = "small"
    card: str | None = None
    abnormal_class: str | None = None
    seed: NonNegativeInt = 0
    steps: PositiveInt = 400
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 0.0
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    balanced: bool = True
    validate_every: PositiveInt = 50
    augmentation: AugmentationConfig = AugmentationConfig()
    calibrate: bool = True


class PostFilterConfig(_Part):
    """What is done to a mask, in this order.

    Parameters
    ----------
    open_close
        Opening, then closing, with 3 × 3 pixels.
    min_pixels
        Smaller components are removed.
    largest_only
        Keep only the largest component (as in the paper): loses all lesions but one.
    """

    open_close: bool = False
    min_pixels: NonNegativeInt = 0
    largest_only: bool = False


class EvaluationConfig(_Part):
    """How methods are compared on the frozen test slices.

    Parameters
    ----------
    methods
        Attribution methods, ``NAME[:KEY=VALUE]…``; see ``voxplain methods``.
    intensity
        Also score the plain intensity inside the organ, and its reverse for dark lesions.
    max_slices
        Abnormal slices of the test and of the validation part each, evenly spread; None: all.
    fixed_counterfactual, fixed_saliency
        Thresholds of the paper, on |x − x′|/2 and on maps scaled to [0, 1].
    tau
        Thresholds of validity.
    post_filter
        Of the masks, for every method alike and for all slices.
    n_boot
        Draws of patients.
    """

    methods: tuple[str, ...] = ()
    intensity: bool = True
    max_slices: PositiveInt | None = 64
    fixed_counterfactual: Share = 0.25
    fixed_saliency: Share = 0.975
    tau: tuple[Share, ...] = (0.8, 0.5)
    post_filter: PostFilterConfig = PostFilterConfig()
    n_boot: PositiveInt = 1000


class Config(_Part):
    """A run.

    Parameters
    ----------
    name
        Of tables and reports.
    data, classifier, judge, generators, evaluation
        See there. The judge is a second classifier that no generator is trained against; None
        leaves it out. Generators share data and classifiers.
    amp
        Mixed precision of training: ``auto`` is fp16 on CUDA and off on a CPU.
    seed
        Of splits, weights, draws and anomalies.
    tensorboard
        Also write events for TensorBoard, into ``tensorboard`` of each generator's folder.
    """

    name: str = Field(default="counterfactual", min_length=1)
    data: DataConfig
    classifier: ClassifierConfig = ClassifierConfig()
    judge: ClassifierConfig | None = ClassifierConfig(seed=1)
    generators: dict[str, GeneratorConfig] = Field(min_length=1)
    evaluation: EvaluationConfig = EvaluationConfig()
    amp: Amp = "auto"
    seed: NonNegativeInt = 0
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check(self) -> Config:
        faults = [
            f"generators.{name}: a name is also that of a folder; letters, digits, - and _"
            for name in self.generators
            if not name.replace("-", "").replace("_", "").isalnum()
        ]
        if self.judge is not None and self.judge == self.classifier:
            faults.append("judge: is the classifier again; give it another seed or network")
        if self.data.intensity.model is None:
            faults += [
                f"{name}.card: pictures must be made as this classifier prepares images; set "
                f"data.intensity.model={one.card} too"
                for name, one in (("classifier", self.classifier), ("judge", self.judge))
                if one is not None and one.card is not None
            ]
        if faults := [*faults, *_misfits(self.generators, self.data.size)]:
            raise ValueError("\n".join(faults))
        return self

    def values(self) -> dict[str, Any]:
        """Return plain values that make an equal one again."""
        return self.model_dump(mode="json")


def _misfits(generators: dict[str, GeneratorConfig], size: tuple[int, int]) -> list[str]:
    """Tell which generators cannot halve pictures of this size as often as they do."""
    needs = {name: _multiple(one) for name, one in generators.items()}
    bad = [name for name, n in needs.items() if any(length % n for length in size)]
    n = lcm(*needs.values())
    good = [-(-length // n) * n for length in size]
    return [
        f"data.size is {list(size)}, but generators.{name} (kind {generators[name].kind}) takes "
        f"rows and columns that are divisible by {needs[name]}: choose e.g. {good}"
        for name in bad
    ]


def _multiple(generator: GeneratorConfig) -> int:
    """Return what rows and columns are divisible by: 16, or 2 to the number of halvings."""
    return 2 ** len(generator.widths) if isinstance(generator, ConditionalConfig) else 16
