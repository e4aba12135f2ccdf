"""The words and numbers of a report, ready for its templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from voxplain.records.explanation import Explanation, TargetSummary
from voxplain.report.colours import label_colours, legend_css, viewer_map
from voxplain.report.figures import region_matrix
from voxplain.report.focus import Focus, focus, region_rows
from voxplain.report.layers import Layers
from voxplain.report.pictures import picture
from voxplain.report.plane import obliquity_degrees, planes_through
from voxplain.report.plane_figures import plane_figure
from voxplain.report.scale import QUANTILE, Scale, intensity_window, is_hounsfield, limits
from voxplain.report.wording import number, percent, seconds, short, storage
from voxplain.space.labelmap import BACKGROUND

_WORST_FIRST = ("issue", "tip", "not applicable", "skipped", "ignored", "passed")
_KINDS = {"contribution": "contributions", "sensitivity": "sensitivities"}


def contents(explanation: Explanation, scale: Scale) -> dict[str, Any]:
    """Everything of a page but its viewer."""
    provenance, cost = explanation.provenance, explanation.provenance.cost
    places = {t.name: focus(explanation, t.name) for t in explanation.targets}
    ends = limits(explanation, scale)
    passes = f"{cost.n_forward:,} forward".replace(",", "\u202f")
    back = f"{cost.n_backward:,} backward".replace(",", "\u202f")
    regions = explanation.table.regions
    n_named = len(regions) - (BACKGROUND in regions)
    kept = len(explanation.attributions)
    return {
        "case": provenance.case,
        "model": provenance.model,
        "method": explanation.method,
        "unit": explanation.unit,
        "kind_words": _KINDS[explanation.kind],
        "n_regions": len(regions),
        "facts": [
            ("method", explanation.method, explanation.kind),
            ("targets", len(explanation.targets), f"{kept} with a map"),
            ("regions", n_named, "and the background" if BACKGROUND in regions else ""),
            ("passes of a window", passes, back),
            ("time", seconds(cost.seconds), f"at most {storage(cost.peak_memory_bytes)}"),
            (
                "image",
                "\u2009×\u2009".join(map(str, explanation.image.grid.shape)),
                _spacing(explanation),
            ),
        ],
        "findings": sorted(explanation.findings, key=lambda f: _WORST_FIRST.index(f.outcome)),
        "targets": [_target(explanation, t, places[t.name], ends) for t in explanation.targets],
        "first": _first_shown(explanation),
        "sign_words": _sign_words(explanation),
        "legend": legend_css(),
        "scale": scale,
        "places": places,
        "scale_words": "; one scale for all targets" if scale == "shared" else "; its own scale",
        "plane_words": _plane_words(explanation),
        **_matrix(explanation),
        "gap_words": _gap_words(explanation),
        "cost_words": (
            f"In all {passes} and {back} passes of one window through the network, "
            f"{seconds(cost.seconds)}, at most {storage(cost.peak_memory_bytes)} of memory."
        ),
        "provenance": list(_flat(provenance.to_dict())),
        "version": provenance.versions.get("voxplain", ""),
        "notes": _channel_notes(explanation),
    }


def _spacing(explanation: Explanation) -> str:
    spacing = explanation.image.grid.spacing
    if spacing == (1.0, 1.0):  # a picture whose file says nothing of its size
        return "pixels"
    return " × ".join(f"{s:.3g}" for s in spacing) + " mm"


def _channel_notes(explanation: Explanation) -> list[str]:
    channels = explanation.image.channels
    if len(channels) == 1:
        return []
    return [
        f"Drawn over the channel {channels[0]}; maps and bars are summed over the "
        f"{len(channels)} channels {', '.join(channels)}."
    ]


def _plane_words(explanation: Explanation) -> str:
    if explanation.image.grid.rank == 2:
        return "rows and columns as in the file"
    tilt = obliquity_degrees(explanation.image.grid)
    words = "radiological convention: the patient's right is on the left"
    return words + (f"; planes follow the image's axes, {tilt:.1f}° oblique" if tilt > 0.5 else "")


def _gap_words(explanation: Explanation) -> str:
    if explanation.kind == "sensitivity":
        return (
            "A sensitivity has no completeness gap: its values are slopes and need not sum to "
            "the score."
        )
    return (
        "The gap is the sum of the map minus (score of the image minus score of the baseline), "
        "in the unit of the target; zero would be complete."
    )


def _sign_words(explanation: Explanation) -> str:
    """Say what the two colours of a map mean."""
    if explanation.kind == "contribution":
        return "blue speaks against the target, orange for it"
    if explanation.method in ("smoothgrad_squared", "vargrad"):
        return "size of the slope, without sign"
    return "where brighter voxels raise the target: orange; lower it: blue"


def _first_shown(explanation: Explanation) -> int:
    """Position of the target to begin with: one with a map, background only if it must be."""

    def rank(i: int) -> tuple[bool, bool, int]:
        target = explanation.targets[i]
        is_flat = bool(explanation.table.top(target.name, 1)["share"].isna().all())
        return target.name not in explanation.attributions or is_flat, target.name == BACKGROUND, i

    return min(range(len(explanation.targets)), key=rank)


def _target(
    explanation: Explanation, target: TargetSummary, place: Focus, ends: Mapping[str, float]
) -> dict[str, Any]:
    end = ends.get(target.name, 0.0)
    pictures = []
    planes = planes_through(explanation.image.grid, place.index)
    for plane in planes:
        figure = plane_figure(explanation, target.name, plane, place, end)
        drawn = picture(figure, dpi=110, is_lossless=False)
        pictures.append(
            {"title": plane.title, "uri": drawn.uri, "width": drawn.width, "height": drawn.height}
        )
    rows = region_rows(explanation, target.name)
    longest = max(float(rows["positive"].max()), float(-rows["negative"].min())) or 1.0
    gap = None if target.gap is None else float(target.gap)
    return {
        "name": target.name,
        "description": target.description.rstrip("."),
        "score": number(target.score),
        "score_value": target.score,
        "gap": number(gap),
        "gap_value": float("nan") if gap is None else gap,
        "n_windows": target.n_windows,
        "has_map": target.name in explanation.attributions,
        "limit": short(end) if end > 0 else "",
        "focus": place.reason + ("" if np.isnan(place.share) else f", {percent(place.share)}"),
        "planes": pictures,
        "columns": " ".join(f"{plane.size_mm[1]:.4g}fr" for plane in planes),
        "most": round(540 * sum(p.size_mm[1] for p in planes) / max(p.size_mm[0] for p in planes)),
        "rows": [
            {
                **row,
                "left": f"{-49 * row['negative'] / longest:.1f}",
                "right": f"{49 * row['positive'] / longest:.1f}",
            }
            for row in rows.to_dict("records")
        ],
    }


def _matrix(explanation: Explanation) -> dict[str, Any]:
    drawing = region_matrix(explanation)
    drawn = picture(drawing.figure, dpi=160, is_lossless=True)
    values = drawing.table.to_numpy(dtype=np.float64)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    overlap = (
        "" if explanation.regions.is_disjoint else "; regions overlap, so a row may exceed 100"
    )
    return {
        "matrix_uri": drawn.uri,
        "matrix_width": drawn.width,
        "matrix_height": drawn.height,
        "overlap_words": overlap,
        "matrix_columns": [str(c) for c in drawing.table.columns],
        "matrix_rows": [
            (str(name), [_cell(value, top) for value in row])
            for name, row in zip(drawing.table.index, values.tolist(), strict=True)
        ],
    }


def _cell(value: float, top: float) -> dict[str, Any]:
    is_drawn = top > 0 and value > 0
    return {
        "value": f"{value:.6g}",
        "text": "–" if np.isnan(value) else f"{100 * value:.1f}",
        "strength": round(75 * (value / top) ** 0.5) if is_drawn else 0,
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return rows


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
        "image": explanation.image.channels[0],
        "unit": explanation.unit,
        "window": [low, high],
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
        "notes": _channel_notes(explanation) + _layer_notes(explanation, layers),
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
