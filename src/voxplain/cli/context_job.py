"""What ``voxplain context`` asks, of which model, about which lesions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from voxplain.attribution.methods import baseline_of
from voxplain.cli.job import check_file_order
from voxplain.errors import MethodError
from voxplain.lesions.case import LesionCase, lesion_class, lesion_model
from voxplain.lesions.context import DISTANCES_MM
from voxplain.models import Model, Parts
from voxplain.regions.lesion import Lesion
from voxplain.space import Volume


def chosen_lesions(
    case: LesionCase, least: int, most: int | None, progress: Callable[[int, int], None]
) -> list[Lesion]:
    """Predict the image, and take the lesions of the sizes that were asked about."""
    pipeline = case.pipeline
    before = pipeline.on_pass
    pipeline.on_pass = lambda _: progress(pipeline.passes.total, pipeline.n_passes)
    lesions = case.lesions
    pipeline.on_pass = before
    return [one for one in lesions if least <= one.n_voxels <= (most or one.n_voxels)]


def context_asked(
    distances: str | None,
    steps: int | None,
    fill: str,
    mode: Literal["keep", "remove", "both"],
    patient: str | None,
) -> dict[str, Any]:
    """Arguments of `voxplain.lesions.context.context`."""
    if steps is not None and distances is not None:
        raise MethodError("--distances and --steps are two ways to say one thing; give one")
    return {
        "distances_mm": DISTANCES_MM if distances is None else _distances(distances),
        "steps": None if steps is None else range(1, steps + 1),
        "fill": baseline_of(fill),
        "modes": ("keep", "remove") if mode == "both" else (mode,),
        "patient": patient,
    }


def checked_model(
    loaded: Model | Parts, class_name: str | None, image: Volume, files: list[Path]
) -> Model:
    """Return the model of the lesions' class, if it fits the image."""
    model = lesion_model(loaded, class_name)
    lesion_class(model, class_name)
    model.check_image(image)
    check_file_order(files, model.info.channel_names)
    return model


def _distances(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise MethodError(
            f"--distances takes millimetres, e.g. --distances 0,2,5,10; got {text!r}"
        ) from None
