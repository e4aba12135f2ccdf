"""The viewer of a page of lesions: channels, lesions in the colours of their types, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxplain.report.colours import viewer_map
from voxplain.report.layers import Layer, body, image_layer, label_layer, map_layer
from voxplain.report.lesion_planes import Scene
from voxplain.report.lesion_types import style
from voxplain.space.box import Box

_GROUND_SHARE = 0.7  # of the room, for channels and lesions; the rest is for maps


def lesion_viewer(
    scene: Scene,
    order: Sequence[int],
    methods: Sequence[str],
    ends: Mapping[str, float],
    room: float,
) -> dict[str, Any]:
    """Collect what the viewer of a page of lesions needs.

    Parameters
    ----------
    scene
        A 3D case.
    order
        Rows of lesions; the maps of the first ones are packed as long as there is room.
    methods
        In the order of the page's choice.
    ends
        Value of the strongest colour of every method.
    room
        Bytes.
    """
    crop = body(scene.image, [scene.result.lesions])
    channels, labels, factor = _ground(scene, crop, room * _GROUND_SHARE)
    used = sum(len(layer.text) for layer in [*channels, labels])
    maps, texts, n_shown = _maps(scene, order, methods, ends, room - used)
    types = scene.result.instances["type"].tolist()
    data = {
        "images": [
            {"id": f"layer-image-{i}", "name": layer.name, "window": list(scene.windows[i])}
            for i, layer in enumerate(channels)
        ],
        "unit": "",
        "isSigned": True,
        "labels": [
            {
                "id": "layer-lesions",
                "name": "lesion",
                "names": ["none", *_names(scene)],
                "colours": [style(kind).rgb for kind in types],
            }
        ],
        "maps": maps,
        "colours": {"positive": viewer_map(1), "negative": viewer_map(-1)},
        "focus": [scene.grid.to_world(scene.middle(row + 1)).tolist() for row in range(len(types))],
    }
    texts = [
        *({"id": f"layer-image-{i}", "text": layer.text} for i, layer in enumerate(channels)),
        {"id": "layer-lesions", "text": labels.text},
        *texts,
    ]
    return {
        "data": {"viewer": data},
        "layers": texts,
        "has_maps": bool(maps),
        "image_names": [layer.name for layer in channels],
        "notes": _notes(n_shown, len({name for name, _ in scene.result.maps}), factor),
    }


def _names(scene: Scene) -> list[str]:
    names = scene.result.lesions.names
    return [names[label] for label in sorted(names) if label]


def _ground(scene: Scene, crop: Box, room: float) -> tuple[list[Layer], Layer, int]:
    """Channels and lesions, averaged over cubes of growing size until they fit."""
    for factor in range(1, max(crop.shape) + 1):
        labels, _ = label_layer(scene.result.lesions, "lesions", crop, factor)
        channels = [
            image_layer(scene.image, i, crop, factor) for i in range(len(scene.image.channels))
        ]
        if len(labels.text) + sum(len(layer.text) for layer in channels) <= room:
            break
    return channels, labels, factor


def _maps(
    scene: Scene,
    order: Sequence[int],
    methods: Sequence[str],
    ends: Mapping[str, float],
    room: float,
) -> tuple[list[dict[str, Any]], list[dict[str, str]], int]:
    """Pack the maps that fit, lesion by lesion; tell of how many lesions."""
    described: list[dict[str, Any]] = []
    texts: list[dict[str, str]] = []
    names = scene.result.lesions.names
    n_shown = 0
    for row in order:
        found: list[tuple[dict[str, Any], str]] = []
        for m, method in enumerate(methods):
            attribution = scene.result.maps.get((names[row + 1], method))
            if attribution is None:
                continue
            whole = Box.whole(attribution.grid.shape)
            shown: dict[int, int] = {}  # image channel: the map's channel over it, the first one
            for i, name in enumerate(attribution.channels):
                shown.setdefault(scene.base(name, i, len(attribution.channels)), i)
            for channel in range(len(scene.image.channels)):
                i = shown.get(channel, 0)
                layer = map_layer(
                    attribution.values[i], method, attribution.grid, whole, 1, ends[method]
                )
                found.append(
                    (
                        {
                            "id": f"layer-map-{row}-{m}-{channel}", "target": row, "method": m,
                            "channel": channel, "unit": layer.unit, "limit": layer.limit,
                            "words": attribution.unit,
                        },
                        layer.text,
                    )
                )  # fmt: skip
        room -= sum(len(text) for _, text in found)
        if room < 0:
            break
        n_shown += bool(found)
        described += [one for one, _ in found]
        texts += [{"id": one["id"], "text": text} for one, text in found]
    return described, texts, n_shown


def _notes(n_shown: int, n_kept: int, factor: int) -> list[str]:
    notes = []
    if n_kept:
        notes.append(
            "In the viewer maps have 8 bits: 127 steps to either side of zero up to the end of "
            "the colours; what lies beyond is shown like it. Saved maps hold full precision."
        )
    if n_shown < n_kept:
        notes.append(
            f"To keep this page small, the viewer holds the maps of {n_shown} of {n_kept} lesions."
        )
    if factor > 1:
        notes.append(
            "To keep this page small, in the viewer image and lesions are reduced over cubes of "
            f"{factor} × {factor} × {factor} voxels."
        )
    return notes
