"""What can be said of a generator: its networks, losses and schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=4, multiple_of=4)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class _Training(BaseModel):
    """What every training of a generator has.

    Parameters
    ----------
    steps, batch
        Steps of the optimiser, and slices in each (`coin`: so many normal and so many abnormal
        ones; `inpaint-mask`: so many abnormal and half as many normal ones).
    log_every, save_every, sample_every
        Steps between rows of the log, saved states, and pictures of samples.
    validate_every
        Steps between validations.
    patience
        End early after so many validations without a better loss; None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: PositiveInt
    batch: PositiveInt
    log_every: PositiveInt = 25
    save_every: PositiveInt = 100
    sample_every: PositiveInt = 500
    validate_every: PositiveInt = 250
    patience: PositiveInt | None = None


class CoinConfig(_Training):
    """The stabilised form: x′ = (1 − m)·x + m·r with a mask m and a fill r from one U-Net.

    L = w_adv·hinge + w_cls·softplus(z(x′) + margin) + w_identity·|x − x′| on normal slices
    + w_change·|x − x′| on abnormal ones + w_mask·mean m + w_tv·TV(m); the discriminator's reals
    are normal slices only, its fakes repaired abnormal ones.

    Parameters
    ----------
    width
        Channels of the first level of the U-Net, a multiple of 4; four halvings follow.
    mask_bias
        Bias of the mask's logit at the start: −4 begins close to the identity.
    smooth_px
        The mask is averaged over this many pixels, so that it cannot be dust.
    weight_adversarial, weight_classifier, weight_identity, weight_change, weight_mask, weight_tv
        w of each term; 0 leaves it out.
    margin
        The logit z is pushed below −margin.
    jitter_noise, jitter_blur_px
        Largest noise and blur put on x′ before the classifier, against adversarial dust.
    discriminator_width, discriminator_layers
        Of MONAI's patch discriminator.
    learning_rate, discriminator_rate, betas
        Of Adam.
    ema
        Weights that are used are this moving average.
    """

    kind: Literal["coin"] = "coin"
    steps: PositiveInt = 1500
    batch: PositiveInt = 8
    width: Width = 8
    mask_bias: float = -4.0
    smooth_px: PositiveInt = 1
    weight_adversarial: NonNegativeFloat = 1.0
    weight_classifier: NonNegativeFloat = 2.0
    weight_identity: NonNegativeFloat = 10.0
    weight_change: NonNegativeFloat = 2.0
    weight_mask: NonNegativeFloat = 0.5
    weight_tv: NonNegativeFloat = 0.2
    margin: NonNegativeFloat = 1.0
    jitter_noise: NonNegativeFloat = 0.05
    jitter_blur_px: NonNegativeFloat = 0.7
    discriminator_width: PositiveInt = 16
    discriminator_layers: PositiveInt = 2
    learning_rate: PositiveFloat = 5e-4
    discriminator_rate: PositiveFloat = 4e-4
    betas: tuple[Beta, Beta] = (0.0, 0.9)
    ema: Beta = 0.995


class ConditionalConfig(_Training):
    """The published family: Singla's explainer, COIN, and the rows between them.

    Encoder, decoder with conditional batch norm, projection discriminator; see the methods'
    page. Defaults are the paper's synthetic COIN.

    Parameters
    ----------
    perturbation
        x′ = tanh(x + o) (COIN), else x′ = tanh(o).
    skips
        Skip connections, 0 to 4, coarsest first.
    conditions
        1: the target is always normal (COIN); 2: the opposite of what the classifier says.
    reconstruction
        ``l1``, or ``carl``: the mean over each region of data.organ and the rest.
    cycle
        Also x against the repaired repair.
    weight_adversarial, weight_classifier, weight_reconstruction, weight_change, weight_tv
        Of each term. `weight_classifier`: of KL(target ‖ f(x′)); `weight_change`: of |x − x′|
        beside the reconstruction; `weight_tv`: of the squared TV of 255·|x − x′|/2.
    adversarial
        ``bce`` (what the published program runs, whatever its configuration says) or ``hinge``.
    widths
        Channels of the encoder's blocks, each of which halves the picture.
    upsampling
        Of the decoder.
    spectral
        Spectral norm in encoder and decoder; the discriminator always has it.
    discriminator_widths
        Of its blocks; the last one does not halve if `discriminator_last_full`.
    generator_every
        The discriminator learns in every step, the generator in every so-manyth.
    learning_rate, betas
        Of Adam, for both.
    """

    kind: Literal["conditional"] = "conditional"
    steps: PositiveInt = 225_600
    batch: PositiveInt = 16
    perturbation: bool = True
    skips: Annotated[int, Field(ge=0, le=4)] = 4
    conditions: Literal[1, 2] = 1
    reconstruction: Literal["l1", "carl"] = "l1"
    cycle: bool = True
    weight_adversarial: NonNegativeFloat = 1.0
    weight_classifier: NonNegativeFloat = 5.0
    weight_reconstruction: NonNegativeFloat = 1.0
    weight_change: NonNegativeFloat = 1.0
    weight_tv: NonNegativeFloat = 0.05
    adversarial: Literal["bce", "hinge"] = "bce"
    widths: tuple[PositiveInt, ...] = Field(default=(64, 128, 256, 512, 1024), min_length=2)
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    spectral: bool = True
    discriminator_widths: tuple[PositiveInt, ...] = Field(
        default=(64, 128, 256, 512, 1024, 1024), min_length=1
    )
    discriminator_last_full: bool = True
    generator_every: PositiveInt = 5
    learning_rate: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.0, 0.999)

    @model_validator(mode="after")
    def _check(self) -> ConditionalConfig:
        if self.skips > len(self.widths) - 1:
            raise ValueError(
                f"skips: {len(self.widths)} blocks have at most {len(self.widths) - 1} skip "
                f"connections, got {self.skips}"
            )
        return self


class InpaintMaskConfig(_Training):
    """Without an adversary: a frozen inpainting network, and a network that chooses the mask.

    First r = Inpaint((1 − h)·x, h) learns by |r − x| inside random holes h of normal slices, and
    by a tenth of its mean over the whole picture;
    then the mask m minimises w_cls·softplus(z((1 − m)·x + m·r) + margin) + w_mask·mean m
    + w_tv·TV(m).

    Parameters
    ----------
    inpaint_steps
        Of the first stage; they come before `steps`, which are those of the second.
    width
        Of both U-Nets.
    mask_bias
        Bias of the mask's logit at the start: 0 begins with everything half replaced. From an
        almost empty mask (−2) the lesion shines through every repair, and nothing is learned.
    smooth_px
        The mask is averaged over so many pixels.
    weight_classifier, weight_mask, weight_tv, margin
        Of the second stage.
    jitter_noise, jitter_blur_px
        As in `CoinConfig`.
    hole_share
        Range of the share of the picture that a hole covers.
    learning_rate
        Highest of a one-cycle schedule, of both stages.
    """

    kind: Literal["inpaint-mask"] = "inpaint-mask"
    inpaint_steps: PositiveInt = 600
    steps: PositiveInt = 500
    batch: PositiveInt = 16
    width: Width = 8
    mask_bias: float = 0.0
    smooth_px: PositiveInt = 3
    weight_classifier: NonNegativeFloat = 1.0
    weight_mask: NonNegativeFloat = 2.0
    weight_tv: NonNegativeFloat = 0.5
    margin: NonNegativeFloat = 1.0
    jitter_noise: NonNegativeFloat = 0.05
    jitter_blur_px: NonNegativeFloat = 0.7
    hole_share: tuple[Share, Share] = (0.05, 0.3)
    learning_rate: PositiveFloat = 3e-3


GeneratorConfig = Annotated[
    CoinConfig | ConditionalConfig | InpaintMaskConfig, Field(discriminator="kind")
]
