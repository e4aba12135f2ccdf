"""Methods by name, and their settings from text."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from voxplain.attribution.baselines import Baseline, Blurred, Constant, GivenImage, MeanImage
from voxplain.attribution.blur_ig import BlurIG
from voxplain.attribution.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, XGradCam
from voxplain.attribution.deep_lift import DeepLift
from voxplain.attribution.expected import ExpectedGradients
from voxplain.attribution.fills import Inpainted, NoiseFill
from voxplain.attribution.gradient import Gradient, InputXGradient
from voxplain.attribution.gradient_statistics import GradientMax, GradientQuantile
from voxplain.attribution.guided import Deconvnet, GuidedBackprop, GuidedGradCam
from voxplain.attribution.guided_ig import GuidedIG
from voxplain.attribution.integrated import IntegratedGradients
from voxplain.attribution.learned_fill import LearnedInpainting
from voxplain.attribution.method import Method
from voxplain.attribution.occlusion import Ablation, Occlusion
from voxplain.attribution.owen import Owen
from voxplain.attribution.rise import Rise
from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.shapley import Shapley
from voxplain.attribution.smooth_integrated import SmoothIG, SmoothIGSquared
from voxplain.attribution.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from voxplain.attribution.xrai import XRAI
from voxplain.errors import MethodError
from voxplain.space.labelmap import nearest
from voxplain.space.read import read_image

METHODS: Mapping[str, type[Method]] = {
    Gradient.name: Gradient,
    InputXGradient.name: InputXGradient,
    SmoothGrad.name: SmoothGrad,
    SmoothGradSquared.name: SmoothGradSquared,
    VarGrad.name: VarGrad,
    GradientQuantile.name: GradientQuantile,
    GradientMax.name: GradientMax,
    IntegratedGradients.name: IntegratedGradients,
    SmoothIG.name: SmoothIG,
    SmoothIGSquared.name: SmoothIGSquared,
    ExpectedGradients.name: ExpectedGradients,
    BlurIG.name: BlurIG,
    GuidedIG.name: GuidedIG,
    Shapley.name: Shapley,
    Owen.name: Owen,
    Ablation.name: Ablation,
    Occlusion.name: Occlusion,
    Rise.name: Rise,
    DeepLift.name: DeepLift,
    GuidedBackprop.name: GuidedBackprop,
    Deconvnet.name: Deconvnet,
    GradCam.name: GradCam,
    GradCamPlusPlus.name: GradCamPlusPlus,
    HiResCam.name: HiResCam,
    XGradCam.name: XGradCam,
    LayerCam.name: LayerCam,
    ScoreCam.name: ScoreCam,
    GuidedGradCam.name: GuidedGradCam,
    XRAI.name: XRAI,
}

PRESETS: Mapping[str, Method] = {
    "agg2exp-gradient": Gradient(),
    "agg2exp-smoothgrad": SmoothGrad(n=20, noise=0.1),
    "agg2exp-kernelshap_semantic": Shapley(paint="value"),
    "agg2exp-kernelshap_cubes": Shapley("agg2exp_cubes:512", samples=1000, paint="value"),
    "agg2exp-integrated_gradients": IntegratedGradients(n=20, rule="agg2exp"),
    "agg2exp-gradient_quantiles": GradientQuantile(q=0.9, n=100),
    "arun-gradient": Gradient(),
    "arun-smoothgrad": SmoothGradSquared(n=25, noise=0.15),
    "arun-integrated_gradients": IntegratedGradients(n=10, rule="agg2exp", baseline=Constant(-1.0)),
    "arun-grad_cam": GradCam(upsampling="tf1"),
    "arun-guided_backprop": GuidedBackprop(),
    "arun-guided_grad_cam": GuidedGradCam(product="display", upsampling="tf1"),
    "ies-average": SmoothGrad(n=50, noise=0.05),
    "ies-max": GradientMax(n=50, noise=0.05, first_channel=True),
    "ies-grad_cam_pp": GradCamPlusPlus(),
    "coin-rise": Rise(n=6000, grid=8, keep=0.1),
    "coin-score_cam": ScoreCam(weights="probability"),
    "coin-layer_cam": LayerCam(),
    "arun-smooth_ig": SmoothIGSquared(rule="agg2exp", baseline=Constant(-1.0)),
    "arun-xrai": XRAI(n=100, rule="agg2exp", extremes="image"),
}
"""Settings of published work, by name."""


def method_of(method: str | Method, settings: Mapping[str, str] | None = None) -> Method:
    """Return a method from its name, or from a preset's.

    Parameters
    ----------
    method
        A name of `METHODS` or `PRESETS`, or a method (given back as it is).
    settings
        Settings as text, e.g. ``{"n": "8", "baseline": "blur:10"}``.

    Raises
    ------
    MethodError
        If the name or a setting is unknown, or a value does not fit.
    """
    if not isinstance(method, str):
        return method
    if method in PRESETS:
        if settings:
            raise MethodError(
                f"the preset {method} is fixed; use a method's own name with settings"
            )
        return PRESETS[method]
    if method not in METHODS:
        raise MethodError(f"no method {method!r}{nearest(method, [*METHODS, *PRESETS])}")
    kind = METHODS[method]
    hints = get_type_hints(kind)
    values = {}
    for name, text in (settings or {}).items():
        if name not in {f.name for f in fields(kind)}:  # type: ignore[arg-type]
            known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
            if not known:
                raise MethodError(f"{method} has no settings; got {name!r}")
            raise MethodError(f"{method} has no setting {name!r}{nearest(name, known)}")
        values[name] = _value(name, text, hints[name])
    return kind(**values)


def baseline_of(text: str) -> Baseline:
    """Return a baseline or fill from text.

    ``mean``, ``blur:MM``, ``noise:FACTOR``, ``inpaint:MM``, ``inpaint:FOLDER`` (see
    `LearnedInpainting`), ``image:FILE``, ``constant:VALUE`` or a number.

    Raises
    ------
    MethodError
        If it is none of these, a number is out of range, or the folder holds no network.
    ImageError
        If the file cannot be read.
    """
    kind, _, value = text.partition(":")
    if kind == "mean" and not value:
        return MeanImage()
    if kind == "image" and value:
        return GivenImage(read_image(value))
    if kind == "inpaint" and value and not _is_number(value):
        return LearnedInpainting(Path(value))
    try:
        if kind in _FILLS:
            return _FILLS[kind](float(value)) if value else _FILLS[kind]()
        return Constant(float(text))
    except ValueError as error:
        raise MethodError(
            "a baseline is mean, blur:MM, noise, inpaint:MM, inpaint:FOLDER, image:FILE, "
            f"constant:VALUE or a number; got {text!r}"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_FILLS: Mapping[str, Callable[..., Baseline]] = {
    "blur": Blurred,
    "noise": NoiseFill,
    "inpaint": Inpainted,
    "constant": Constant,
}


def describe_settings(kind: type[Method]) -> dict[str, str]:
    """Return each setting's default, as text that `method_of` takes."""
    found = {}
    for f in fields(kind):  # type: ignore[arg-type]
        factory = f.default_factory
        found[f.name] = setting_text(f.default if factory is MISSING else factory())
    return found


def setting_text(value: Any) -> str:
    """Return the value of a setting as text that `method_of` takes; a given image has none."""
    if isinstance(value, tuple):
        return "+".join(map(setting_text, value))
    if isinstance(value, MeanImage):
        return "mean"
    if isinstance(value, LearnedInpainting):
        return value.text
    for word, fill in _FILLS.items():
        if type(value) is fill:
            (number,) = (getattr(value, f.name) for f in fields(value))
            return f"{word}:{number:g}"
    return str(value)


def _value(name: str, text: str, hint: Any) -> Any:
    if hint is Baseline:
        return baseline_of(text)
    if hint == tuple[Baseline, ...]:
        return tuple(map(baseline_of, text.split("+")))
    kinds = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    if text.lower() == "none" and type(None) in kinds:
        return None
    kind = next(k for k in kinds if k is not type(None))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise MethodError(f"{name} is true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise MethodError(f"{name} is a number ({kind.__name__}), got {text!r}") from error
    return text
