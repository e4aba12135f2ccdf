"""The page's viewer: its volumes and how to show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxplain.records.explanation import Explanation
from voxplain.report.colours import label_colours, viewer_map
from voxplain.report.focus import Focus
from voxplain.report.layers import Layers
from voxplain.report.scale import QUANTILE, intensity_window, is_hounsfield, is_signed
from voxplain.report.wording import percent


def viewer_contents(
    explanation: Explanation, layers: Layers, places: Mapping[str, Focus]
) -> dict[str, Any]:
    """Collect what the page's viewer needs: the volumes, how to show them, where to look."""
    order = {t.name: i for i, t in enumerate(explanation.targets)}
    low, high = intensity_window(explanation.image)
    labels: list[dict[str, Any]] = [
        {
            "id": f"layer-labels-{i}",
            "name": layer.name,
            "names": list(names),
            "colours": label_colours(len(names) - 1),
        }
        for i, (layer, names) in enumerate(layers.labels)
    ]
    maps: list[dict[str, Any]] = [
        {
            "id": f"layer-map-{i}",
            "target": order[layer.name],
            "unit": layer.unit,
            "limit": layer.limit,
        }
        for i, layer in enumerate(layers.maps)
    ]
    grid = explanation.image.grid
    data = {
        "images": [
            {"id": "layer-image", "name": explanation.image.channels[0], "window": [low, high]}
        ],
        "unit": explanation.unit,
        "isSigned": is_signed(explanation),
        "labels": labels,
        "maps": maps,
        "colours": {"positive": viewer_map(1), "negative": viewer_map(-1)},
        "focus": [grid.to_world(places[t.name].index).tolist() for t in explanation.targets],
    }
    texts = [{"id": "layer-image", "text": layers.image.text}]
    texts += [
        {"id": item["id"], "text": layer.text}
        for item, (layer, _) in zip(labels, layers.labels, strict=True)
    ]
    texts += [
        {"id": item["id"], "text": layer.text}
        for item, layer in zip(maps, layers.maps, strict=True)
    ]
    return {
        "data": {"viewer": data},
        "layers": texts,
        "label_names": [layer.name for layer, _ in layers.labels],
        "has_maps": bool(maps),
        "windows": _windows(explanation),
        "notes": _layer_notes(explanation, layers),
    }


def _windows(explanation: Explanation) -> list[dict[str, Any]]:
    if not is_hounsfield(explanation.image):
        return []
    return [
        {"name": "soft tissue", "low": -160, "high": 240},
        {"name": "lung", "low": -1000, "high": 200},
        {"name": "bone", "low": -300, "high": 1000},
    ]


def _layer_notes(explanation: Explanation, layers: Layers) -> list[str]:
    notes = []
    if layers.maps:
        beyond = max(layer.n_beyond for layer in layers.maps) / explanation.image.grid.n_voxels
        notes.append(
            "In this page maps have 8 bits: 127 steps to either side of zero up to the "
            f"{100 * QUANTILE:g}th percentile of |a|; what lies beyond (at most "
            f"{100 * beyond:.2g} % of voxels) is shown like it. Saved attribution NIfTI files "
            "(--save-maps) hold full precision."
        )
    shrunk = [
        f"{what} over cubes of {factor} × {factor} × {factor} voxels"
        for what, factor in (("maps are averaged", layers.map_factor),
                             ("image and labels are reduced", layers.image_factor))
        if factor > 1
    ]  # fmt: skip
    if shrunk:
        notes.append(f"To keep this page small, in the viewer {' and '.join(shrunk)}.")
    if layers.outside > 0.001:
        notes.append(
            "The viewer is cropped to the body; at most "
            f"{percent(layers.outside)} of a map's |a| lies outside."
        )
    if any(not m.is_disjoint for m in (explanation.prediction, explanation.regions) if m):
        notes.append("Where labels overlap, the viewer shows the last of them.")
    return notes
