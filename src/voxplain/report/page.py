"""The words and numbers of a report, ready for its templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from voxplain.records.explanation import Explanation, TargetSummary
from voxplain.report.colours import legend_css
from voxplain.report.focus import Focus, focus, is_divided, region_rows
from voxplain.report.games import games
from voxplain.report.ground import is_colour
from voxplain.report.matrix import matrix
from voxplain.report.pictures import picture
from voxplain.report.plane_figures import bare_figure, plane_figure
from voxplain.report.scale import Scale, is_signed, limits
from voxplain.report.wording import number, percent, seconds, short, storage
from voxplain.space.labelmap import BACKGROUND
from voxplain.space.plane import obliquity_degrees, planes_through

WORST_FIRST = ("issue", "tip", "not applicable", "skipped", "ignored", "passed")
_KINDS = {
    "contribution": "contributions",
    "sensitivity": "sensitivities",
    "localisation": "localisations",
}


def contents(explanation: Explanation, scale: Scale) -> dict[str, Any]:
    """Everything of a page but its viewer."""
    provenance, cost = explanation.provenance, explanation.provenance.cost
    places = {t.name: focus(explanation, t.name) for t in explanation.targets}
    ends = limits(explanation, scale)
    passes = f"{cost.n_forward:,} forward".replace(",", "\u202f")
    back = f"{cost.n_backward:,} backward".replace(",", "\u202f")
    window_words = "" if explanation.classes else " of one window"
    kept = len(explanation.attributions)
    return {
        "case": provenance.case,
        "model": provenance.model,
        "method": explanation.method,
        "unit": explanation.unit,
        "kind_words": _KINDS[explanation.kind],
        "classes": explanation.classes,
        "is_divided": is_divided(explanation),
        "has_prediction": explanation.prediction is not None,
        "over_words": _over_words(explanation),
        "voxels": "pixels" if explanation.image.grid.rank == 2 else "voxels",
        "facts": [
            ("method", explanation.method.replace("_", "_\u200b"), explanation.kind),
            ("targets", len(explanation.targets), f"{kept} with a map"),
            ("regions", *_regions_fact(explanation)),
            ("passes" if explanation.classes else "passes of a window", passes, back),
            ("time", seconds(cost.seconds), f"at most {storage(cost.peak_memory_bytes)}"),
            (
                "image",
                "\u2009×\u2009".join(map(str, explanation.image.grid.shape)),
                _spacing(explanation),
            ),
        ],
        "findings": sorted(explanation.findings, key=lambda f: WORST_FIRST.index(f.outcome)),
        "targets": [_target(explanation, t, places[t.name], ends) for t in explanation.targets],
        "first": _first_shown(explanation),
        "sign_words": _sign_words(explanation),
        "is_signed": is_signed(explanation),
        "legend": legend_css(is_signed(explanation)),
        "scale": scale,
        "places": places,
        "scale_words": "; one scale for all targets" if scale == "shared" else "; its own scale",
        "plane_words": _plane_words(explanation),
        **(matrix(explanation) if is_divided(explanation) else {}),
        **games(explanation),
        "gap_words": _gap_words(explanation),
        "cost_words": (
            f"In all {passes} and {back} passes{window_words} through the network, "
            f"{seconds(cost.seconds)}, at most {storage(cost.peak_memory_bytes)} of memory."
        ),
        "provenance": list(flat_rows(provenance.to_dict())),
        "version": provenance.versions.get("voxplain", ""),
        "notes": _channel_notes(explanation) + _region_notes(explanation),
    }


def _regions_fact(explanation: Explanation) -> tuple[object, str]:
    regions = explanation.table.regions
    if not is_divided(explanation):
        return "none", "the whole image"
    has_background = BACKGROUND in regions
    return len(regions) - has_background, "and the background" if has_background else ""


def _over_words(explanation: Explanation) -> str:
    n_regions = len(explanation.table.regions)
    if not is_divided(explanation):
        return "the whole image"
    return f"{n_regions} region" + "s" * (n_regions != 1)


def _spacing(explanation: Explanation) -> str:
    spacing = explanation.image.grid.spacing
    if spacing == (1.0, 1.0):  # a picture whose file says nothing of its size
        return "pixels"
    return " × ".join(f"{s:.3g}" for s in spacing) + " mm"


def _channel_notes(explanation: Explanation) -> list[str]:
    channels = explanation.image.channels
    if len(channels) == 1:
        return []
    below = "picture in grey" if is_colour(explanation.image) else f"channel {channels[0]}"
    are_told_apart = explanation.table.frame["channel"].nunique() > 1
    sums = "are summed over the" if are_told_apart else "stand for all of the"
    return [
        f"Drawn over the {below}; maps and bars {sums} "
        f"{len(channels)} channels {', '.join(channels)}."
    ]


def _region_notes(explanation: Explanation) -> list[str]:
    if is_divided(explanation):
        return []
    return [
        "A classifier predicts no regions and none were given, so the map is summed over the "
        "whole image; --regions FILE divides it."
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
    if explanation.kind == "localisation":
        return (
            "A localisation has no completeness gap: it shows where the evidence lies, on the "
            "method's own scale, and need not sum to the score."
        )
    if all(target.gap is None for target in explanation.targets):
        return (
            "This method tells no completeness gap: its contributions need not sum to what the "
            "image has over a baseline."
        )
    return (
        "The gap is the sum of the map minus (score of the image minus score of the baseline), "
        "in the unit of the target; zero would be complete."
    )


def _sign_words(explanation: Explanation) -> str:
    """Say what the two colours of a map mean."""
    if explanation.kind == "contribution":
        return "blue speaks against the target, orange for it"
    is_both = is_signed(explanation)
    if explanation.kind == "localisation":
        return (
            "where evidence lies: orange for the target, blue against it"
            if is_both
            else "where the evidence for the target lies, without sign"
        )
    if not is_both:
        return "size of the slope, without sign"
    voxels = "pixels" if explanation.image.grid.rank == 2 else "voxels"
    return f"where brighter {voxels} raise the target: orange; lower it: blue"


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
    planes = planes_through(explanation.image.grid, place.index)
    figures = [
        (plane.title, plane_figure(explanation, target.name, plane, place, end)) for plane in planes
    ]
    if explanation.image.grid.rank == 2 and target.name in explanation.attributions:
        planes *= 2  # a map hides much of the one picture there is
        figures = [("image", bare_figure(explanation, planes[0])), ("with the map", figures[0][1])]
    pictures = [
        {"title": title, "uri": drawn.uri, "width": drawn.width, "height": drawn.height}
        for title, figure in figures
        for drawn in (picture(figure, dpi=110, is_lossless=False),)
    ]
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
        **_focus_words(explanation, place),
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


def _focus_words(explanation: Explanation, place: Focus) -> dict[str, str]:
    """Where planes are cut; a picture is not cut, its strongest region is named in the legend."""
    share = "" if np.isnan(place.share) else f", {percent(place.share)}"
    if explanation.image.grid.rank == 3:
        return {"focus": f"through the {place.reason}{share}", "strongest": ""}
    return {"focus": "", "strongest": "" if place.region is None else f" {place.region}{share}"}


def flat_rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return names and texts of nested values; a name holds the names above it, with dots."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat_rows(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return rows
