"""voxplain: explain medical image models and say whether the explanation can be trusted.

Five lines::

    import voxplain

    model = voxplain.load_model("model_folder")
    image = voxplain.read_image("ct.nii.gz")
    explanation = voxplain.explain(model, image, "class:liver", "smoothgrad")
    explanation.table.matrix()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Compute": "voxplain.inference.compute",
    "Explanation": "voxplain.records",
    "Attribution": "voxplain.records",
    "Grid": "voxplain.space",
    "LabelMap": "voxplain.space",
    "Volume": "voxplain.space",
    "estimate": "voxplain.attribution",
    "explain": "voxplain.attribution",
    "importance": "voxplain.regions",
    "load_model": "voxplain.models",
    "predict": "voxplain.inference.predict",
    "read_image": "voxplain.space",
    "read_labels": "voxplain.space",
    "wrap": "voxplain.models",
    "to_metatensor": "voxplain.models.metatensor",
    "write_report": "voxplain.report",
}

__all__ = [
    "Attribution",
    "Compute",
    "Explanation",
    "Grid",
    "LabelMap",
    "Volume",
    "estimate",
    "explain",
    "importance",
    "load_model",
    "predict",
    "read_image",
    "read_labels",
    "to_metatensor",
    "wrap",
    "write_report",
]

if TYPE_CHECKING:
    from voxplain.attribution import estimate, explain
    from voxplain.inference.compute import Compute
    from voxplain.inference.predict import predict
    from voxplain.models import load_model, wrap
    from voxplain.models.metatensor import to_metatensor
    from voxplain.records import Attribution, Explanation
    from voxplain.regions import importance
    from voxplain.report import write_report
    from voxplain.space import Grid, LabelMap, Volume, read_image, read_labels


def __getattr__(name: str) -> Any:
    """Import on first use: ``import voxplain`` alone loads neither torch nor matplotlib."""
    if name in _WHERE:
        _show_in_notebooks()
        return getattr(import_module(_WHERE[name]), name)
    if name == "attribution":  # its targets and methods are used beside `explain`
        return import_module("voxplain.attribution")
    raise AttributeError(f"module 'voxplain' has no attribute {name!r}")


def _show_in_notebooks() -> None:
    """Let results show themselves: planes and table, drawn when a notebook asks."""
    from voxplain.records.display import render_with

    render_with(lambda result: str(import_module("voxplain.report").show(result).html))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
