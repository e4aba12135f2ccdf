"""One self-contained page about the lesions of one case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxplain.errors import ImageError
from voxplain.records.lesion_tables import LesionResult
from voxplain.report.colours import legend_css
from voxplain.report.html import provenance_rows, sorted_findings, with_viewer, write_page
from voxplain.report.lesion_figure import figure_of
from voxplain.report.lesion_planes import Scene, colour_end, columns, lesion_planes
from voxplain.report.lesion_plots import peak_boxes, shell_lines
from voxplain.report.lesion_rows import (
    channels_of,
    lesion_rows,
    methods_of,
    pictured,
    strongest,
    unit_of,
    with_type,
)
from voxplain.report.lesion_types import in_order, style
from voxplain.report.lesion_volumes import lesion_viewer
from voxplain.report.wording import seconds, short, storage
from voxplain.space.grid import Grid
from voxplain.space.plane import obliquity_degrees
from voxplain.space.resample import resample

N_PICTURED = 40
"""Lesions that get pictures; all of them are in the table and in the viewer."""

_STYLES = ("lesions.css",)
_SCRIPTS = ("page.js", "lesions.js")
_PICTURE_SHARE = 0.5  # of the page's size, for pictures of lesions


def write_lesion_report(result: LesionResult, path: Path | str, *, max_mb: float = 25.0) -> Path:
    """Write a page that opens from disk, without network, in any browser.

    It holds a table of all lesions, the viewer (3D images), planes through the lesions, and
    what their maps have in common by type. Maps of one method have one colour scale for all
    lesions and channels: their values are comparable.

    Parameters
    ----------
    result
        Lesions with their maps, and the image.
    path
        File to write, e.g. ``report.html``; replaced whole or not at all.
    max_mb
        Size of the file at most, in MB (10⁶ bytes). Pictures take half of it at most, and
        channels in the viewer are averaged over cubes until they fit; the page says so.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImageError
        If the result was loaded without its image.
    GridError
        If image and lesions do not overlap in space.
    OutputError
        If the file cannot be written.
    """
    if result.image is None:
        raise ImageError(
            "this result was loaded without its image, which is not saved with it; give it: "
            "LesionResult.load(folder, image=read_image(file))"
        )
    grid = result.lesions.grid
    is_same = result.image.grid.matches(grid)
    scene = Scene(result, result.image if is_same else resample(result.image, like=grid))
    methods = methods_of(result)
    ends = {method: colour_end(strongest(result, method)) for method in methods}
    rows = lesion_rows(result, ends)
    order = pictured(rows, len(rows))
    page = _contents(scene, rows, ends)
    page.update(_pictures(scene, rows, order, ends, max_mb))
    if not is_same:
        page["notes"].append("The image is shown on the model's grid, where the lesions lie.")
    full = with_viewer(
        page,
        grid.rank if rows else 2,
        max_mb,
        lambda room: lesion_viewer(scene, order, methods, ends, room),
        _SCRIPTS,
    )
    return write_page(full, path)


def _contents(
    scene: Scene, rows: Sequence[Mapping[str, Any]], ends: Mapping[str, float]
) -> dict[str, Any]:
    """Everything of a page but its pictures of lesions and its viewer."""
    result, provenance = scene.result, scene.result.provenance
    counts = Counter(str(row["type"]) for row in rows)
    types = in_order(counts)
    cost = provenance.cost
    classes = [str(c) for c in dict.fromkeys(result.instances["class"])]
    return {
        "template": "lesions.html.j2",
        "styles": _STYLES,
        "case": provenance.case,
        "model": provenance.model,
        "classes": classes,
        "types": [(t, style(t).words, style(t).colour, counts[t]) for t in types],
        "facts": [
            ("lesions", len(rows), f"class {', '.join(classes)}" if classes else "none was found"),
            *((style(t).words, counts[t], t) for t in types if t != "lesion"),
            ("time", seconds(cost.seconds), f"at most {storage(cost.peak_memory_bytes)}"),
            ("image", "\u2009×\u2009".join(map(str, scene.grid.shape)), _spacing(scene.grid)),
        ],
        "findings": sorted_findings(result.findings),
        "lesions": rows,
        "is_typed": any(row["type"] != "lesion" for row in rows),
        "voxels": "pixels" if scene.grid.rank == 2 else "voxels",
        "methods": [_method(result, method, end) for method, end in ends.items()],
        "legend": legend_css(),
        "plane_words": _plane_words(scene.grid),
        "provenance": provenance_rows(provenance),
        "version": provenance.versions.get("voxplain", ""),
        "notes": [],
        "has_maps": False,
        "image_names": list(scene.image.channels),
    }


def _method(result: LesionResult, method: str, end: float) -> dict[str, Any]:
    """One method: channels, unit, end of its colours and its figures over all lesions."""
    unit = unit_of(result, method)
    peaks = with_type(result.saliency, result, method)
    shells = with_type(result.shells, result, method)
    drawn = [("Peaks by type", _PEAK_WORDS, peak_boxes(peaks, unit))]
    if len(shells):
        drawn.append(("Means by distance", _SHELL_WORDS, shell_lines(shells, unit)))
    return {
        "name": method,
        "channels": channels_of(result, method),
        "unit": unit,
        "end": short(end) if end > 0 else "",
        "figures": [figure_of(title, words, drawing) for title, words, drawing in drawn],
    }


_PEAK_WORDS = (
    "Largest positive and negative value of every lesion's map. Box: quartiles and median; "
    "whiskers: outermost lesion within 1.5 times the box; point: a lesion; number: how many."
)
_SHELL_WORDS = (
    "Mean of the map inside the lesion and in shells around it. Line: mean over the lesions of a "
    "type; band: their quartiles, where there are three or more."
)


def _pictures(
    scene: Scene,
    rows: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    ends: Mapping[str, float],
    max_mb: float,
) -> dict[str, Any]:
    """Pictures of the first lesions, by row and method, and words about those without."""
    room = max_mb * 1e6 * _PICTURE_SHARE
    made: dict[int, list[dict[str, Any]]] = {}
    for row in order[:N_PICTURED]:
        of_row = [_sheet(scene, row, method, end) for method, end in ends.items()]
        room -= sum(len(sheet["uri"]) for sheet in of_row)
        if room < 0 and made:
            break
        made[row] = of_row
    words = ""
    if len(made) < len(rows):
        words = (
            f"{len(made)} of {len(rows)} lesions have pictures: the largest of each type, then "
            "the largest. All are in the table and in the viewer."
        )
    return {"sheets": made, "picture_words": words, "first": order[0] if order else 0}


def _sheet(scene: Scene, row: int, method: str, end: float) -> dict[str, Any]:
    """Pictures of one lesion with the map of one method."""
    attribution = scene.result.maps.get((scene.result.lesions.names[row + 1], method))
    drawn, planes = lesion_planes(scene, row + 1, method, end)
    heads = []
    for channel, over in columns(scene, attribution):
        name = scene.image.channels[channel]
        if over is None:
            heads.append((name, ""))
        else:
            of = attribution.channels[over] if attribution is not None else ""
            heads.append((name, "with map" if of == name else f"with map of {of}"))
    return {
        "uri": drawn.uri, "width": drawn.width, "height": drawn.height, "heads": heads,
        "planes": planes, "has_map": attribution is not None,
        "is_zero": attribution is not None and not attribution.values.any(),
    }  # fmt: skip


def _spacing(grid: Grid) -> str:
    if grid.spacing == (1.0, 1.0):  # a picture whose file says nothing of its size
        return "pixels"
    return " × ".join(f"{s:.3g}" for s in grid.spacing) + " mm"


def _plane_words(grid: Grid) -> str:
    if grid.rank == 2:
        return "rows and columns as in the file"
    tilt = obliquity_degrees(grid)
    words = "radiological convention: the patient's right is on the left"
    return words + (f"; planes follow the image's axes, {tilt:.1f}° oblique" if tilt > 0.5 else "")
