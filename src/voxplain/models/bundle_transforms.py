"""The preprocessing of a MONAI bundle: which of its transforms make the image, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.errors import ModelError
from voxplain.models.bundle_config import (
    PlainConfig,
    arguments_of,
    class_name,
    classes_in,
    is_disabled,
)

Transform = Callable[[Any], Any]

# Not run: the image is read already, with channels first. Their arguments are not looked at.
SKIPPED = frozenset({
    "LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor", "ToDevice", "Identity",
})  # fmt: skip
# May be built unasked. They are named one by one: among MONAI's transforms are some that take
# functions, write files or start downloads.
ALLOWED = frozenset({
    "BorderPad", "CenterSpatialCrop", "ClipIntensityPercentiles", "CropForeground",
    "DivisiblePad", "Flip", "GaussianSmooth", "HistogramNormalize", "MedianSmooth",
    "NormalizeIntensity", "Orientation", "RepeatChannel", "Resize", "ResizeWithPadOrCrop",
    "Rotate90", "ScaleIntensity", "ScaleIntensityRange", "ScaleIntensityRangePercentiles",
    "ShiftIntensity", "Spacing", "SpatialCrop", "SpatialPad", "ThresholdIntensity", "Zoom",
})  # fmt: skip
_CAST = "CastToType"  # not run if it casts to float: the type of the image is kept
_KNOWN = SKIPPED | ALLOWED | {"Compose", _CAST}
_DICTIONARY = re.compile(r"(d|D|Dict)$")


@dataclass(frozen=True)
class Preprocessing:
    """Transforms of one image, in order.

    Parameters
    ----------
    transforms
        Those that change its values or its place.
    key
        Key of the image in dictionary transforms.
    described
        Each as plain values: ``name``, and its arguments where they are known.
    """

    transforms: tuple[Transform, ...]
    key: str
    described: tuple[Mapping[str, Any], ...]


def plain_preprocessing(config: PlainConfig, inputs: Sequence[str]) -> Callable[[], Preprocessing]:
    """Look at the preprocessing without building anything; what would run code is noted.

    Transforms of other keys than the image's and those that only read it are passed over.

    Parameters
    ----------
    config
        Has the entry ``preprocessing``.
    inputs
        Names of the network's inputs in the metadata.

    Returns
    -------
    Callable[[], Preprocessing]
        Builds it, once the notes were found empty.

    Raises
    ------
    ModelError
        If something is no transform, draws at random or is lazy, or no key is the image's.
    """
    steps = transform_entries(config, "preprocessing")
    keys = [_keys(config, step, where) for step, where in steps]
    used = list(dict.fromkeys(key for names in keys for key in names))
    if not set(inputs) & set(used):
        config.refuse_code()  # a key may be among the code
    key = _image_key(inputs, used, config.file)
    wanted = [
        plain
        for (step, where), names in zip(steps, keys, strict=True)
        if not names or key in names
        for plain in _looked_at(config, step, where)
    ]

    def build() -> Preprocessing:
        described = tuple({"name": class_name(p["_target_"]), **arguments_of(p)} for p in wanted)
        return Preprocessing(tuple(_build(p, config.file) for p in wanted), key, described)

    return build


def built_preprocessing(built: Any, inputs: Sequence[str], file: str) -> Preprocessing:
    """Sort transforms that MONAI has built from a trusted bundle.

    Raises
    ------
    ModelError
        If one draws at random or is lazy, or no key is the image's.
    """
    steps = list(_flat(built, file))
    used = list(dict.fromkeys(str(key) for step in steps for key in getattr(step, "keys", ())))
    key = _image_key(inputs, used, file)
    wanted = []
    for step in steps:
        if _base(type(step).__name__) in SKIPPED:
            continue
        if hasattr(step, "keys"):
            if key not in step.keys:
                continue
            step.allow_missing_keys = True
        if getattr(step, "lazy", False):
            step.lazy = False  # as Compose does
        wanted.append(step)
    return Preprocessing(tuple(wanted), key, tuple({"name": type(s).__name__} for s in wanted))


def reads_columns_first(config: PlainConfig) -> bool:
    """Whether the bundle's own reading turns a picture's (row, column) to (column, row).

    MONAI's readers of pictures do, unless they are told not to; a bundle that reads no files
    takes what it is given.
    """
    for step, where in transform_entries(config, "preprocessing"):
        if transform_name(step) == "LoadImage":
            reader = class_name(config.follow(step.get("reader"), where)[0])
            reverses = config.follow(step.get("reverse_indexing", True), where)[0]
            return reader != "NumpyReader" and reverses is not False
    return False


def transform_entries(config: PlainConfig, name: str) -> list[tuple[Mapping[str, Any], str]]:
    """Return the entries of single transforms in order, as they are in the file; with places.

    Raises
    ------
    ModelError
        If something is no transform, or a Compose is lazy.
    """
    return list(_steps(config, config.raw[name], name))


def transform_name(step: Mapping[str, Any]) -> str:
    """Name of the array transform of an entry: ``Spacingd`` is ``Spacing``."""
    return _base(class_name(step["_target_"]))


def _base(name: str) -> str:
    """Without the ending of a dictionary transform; ``SpatialPad`` stays."""
    return name if name in _KNOWN else _DICTIONARY.sub("", name)


def _steps(config: PlainConfig, value: Any, where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    value, where = config.follow(value, where)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _steps(config, item, f"{where}::{index}")
        return
    if isinstance(value, str) and value.startswith("$"):
        config.plain(value, where)
        return
    if not isinstance(value, Mapping) or "_target_" not in value:
        raise ModelError(f"{config.file}: {where} is no transform: {value!r}")
    if is_disabled({"_disabled_": config.plain(value.get("_disabled_"), where)}):
        return
    if transform_name(value) != "Compose" or not _is_monais(value):
        yield value, where
        return
    others = config.plain({k: v for k, v in value.items() if k != "transforms"}, where)
    _refuse_lazy(others.get("lazy", False), config.file)
    yield from _steps(config, value.get("transforms", []), f"{where}::transforms")


def _is_monais(step: Mapping[str, Any]) -> bool:
    path = str(step["_target_"]).rpartition(".")[0]
    return not path or f"{path}.".startswith("monai.transforms.")


def _keys(config: PlainConfig, step: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = config.plain(step.get("keys", []), f"{where}::keys")
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{config.file}: {where}::keys must be names, got {found!r}")
    return tuple(names)


def _image_key(inputs: Sequence[str], used: Sequence[str], file: str) -> str:
    """First input of the metadata that the transforms know, or the only key they know."""
    common = [name for name in inputs if name in used]
    if common:
        return common[0]
    if len(used) == 1:
        return used[0]
    if not used:
        return next(iter(inputs), "image")
    raise ModelError(
        f"{file}: which key is the image? The preprocessing knows {', '.join(used)}, "
        f"configs/metadata.json names the input {', '.join(inputs) or '(none)'}: give both one "
        "name in network_data_format.inputs"
    )


def _looked_at(
    config: PlainConfig, step: Mapping[str, Any], where: str
) -> Iterator[Mapping[str, Any]]:
    """Yield a transform of the image as plain data, unless it is not run; note its code."""
    target, base = str(step["_target_"]), transform_name(step)
    if _is_monais(step) and (base in SKIPPED or (base == _CAST and _casts_to_float(step))):
        return
    plain = config.plain(step, where)
    if not _is_monais(step) or base not in ALLOWED:
        _refuse_random(base, config.file)
        config.note_class(target, where)
        return
    for nested, place in classes_in(arguments_of(plain), where):
        config.note_class(nested, place)
    yield plain


def _casts_to_float(step: Mapping[str, Any]) -> bool:
    """Whether it names a floating type only; text is looked at, nothing is evaluated."""
    dtype = step.get("dtype", "$np.float32")
    types = dtype if isinstance(dtype, list) else [dtype]
    return all(re.fullmatch(r"\$?(np\.|numpy\.|torch\.)?(float|float32|float64)", str(t))
               for t in types)  # fmt: skip


def _refuse_random(name: str, file: str) -> None:
    if name.startswith("Rand"):
        raise ModelError(
            f"{file}: preprocessing draws at random ({name}); choose the config of inference with "
            "config=NAME"
        )


def _refuse_lazy(lazy: Any, file: str) -> None:
    if lazy is not False:
        raise ModelError(
            f"{file}: a lazy Compose (lazy: {lazy}) joins several resamplings into one, voxplain "
            "runs each by itself: the network would see another image. Set it to false if the "
            "network was trained so"
        )


def _build(plain: Mapping[str, Any], file: str) -> Transform:
    from monai import transforms

    name, arguments = class_name(plain["_target_"]), arguments_of(plain)
    if "keys" in arguments:
        arguments["allow_missing_keys"] = True
    if "lazy" in arguments:
        arguments["lazy"] = False  # as Compose does
    try:
        built: Transform = getattr(transforms, name)(**arguments)
    except Exception as error:  # whatever wrong arguments make a transform raise
        raise ModelError(f"{file}: the transform {name} cannot be built: {error}") from error
    return built


def _flat(value: Any, file: str) -> Iterator[Any]:
    from monai.transforms import Compose

    if type(value) is Compose:
        _refuse_lazy(value.lazy, file)
        value = value.transforms
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item, file)
        return
    _refuse_random(_base(type(value).__name__), file)
    yield value
