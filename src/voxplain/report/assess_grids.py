"""Grids of maps: cases by methods, and methods by the steps of a cascade."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from voxplain.records.assessment import ORIGINAL
from voxplain.report.assess_tables import Tables, said
from voxplain.report.colours import diverging
from voxplain.report.wording import number

N_TARGETS = 3
"""Targets of a case that are shown; the others are counted."""

_OUTLINE = (47, 174, 58)
_STAGE = re.compile(r"(.+):(\d+)")
_CAPTIONS = ("average_precision", "legacy_auprc", "faithfulness_correlation")
_SIMILARITY = "ssim"
# a lossy picture of noise takes up to half a byte a pixel, and a third more as text
_MOST_PIXELS = 5_500_000
_MOST, _LEAST = 192, 48  # longer side of a picture in pixels

Bytes = NDArray[np.uint8]


class Grids:
    """The kept planes of an assessment, drawn over their images.

    Every map has its own scale, from 0 to the largest value of its volume.

    Parameters
    ----------
    tables
        Of the assessment. Planes are drawn as they were kept, rows downwards.

    Notes
    -----
    Pictures are made smaller the more there are, so that the page stays small.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        assessment = tables.assessment
        rows = assessment.pictures
        self._rows = rows[rows["file"].isin(list(assessment.planes))]
        shown = self._rows[self._rows["target"].isin(tables.targets[:N_TARGETS])]
        is_step = shown["stage"].astype(str).str.fullmatch(_STAGE.pattern)
        # steps are shown of one case and target of a model
        key = ["model", "stage", "method"]
        n_shown = int((~is_step).sum()) + len(shown[is_step].drop_duplicates(key))
        side = int(np.sqrt(_MOST_PIXELS / max(1, n_shown)))
        self.side = min(_MOST, max(_LEAST, side))

    def of_cases(self, model: str) -> list[dict[str, Any]]:
        """Give a grid for each target: a row a case, a column a method.

        Returns
        -------
        list of dict
            ``target``, ``heads``, and ``rows`` with ``name`` and ``cells``; below a map its score
            by ``metric``.
        """
        own = self._of(model, ORIGINAL)
        grids = []
        for target in self._tables.targets[:N_TARGETS]:
            part = own[own["target"] == target]
            labels = [name for name in self._tables.labels if (part["method"] == name).any()]
            if not labels:
                continue
            metric, scores = self._captions(model, target)
            rows = []
            for case in dict.fromkeys(part["case"]):
                known = part[part["case"] == case].drop_duplicates("method").set_index("method")
                ground = self._ground(case, model, target)
                cells = [ground.cell(None, "image", "")]
                for label in labels:
                    row = known.loc[label] if label in known.index else None
                    score = scores.get((case, label), float("nan"))
                    cells.append(self._cell(ground, row, f"{said(label)}, {case}", score))
                rows.append({"name": case, "cells": cells})
            grids.append(
                {"target": target, "heads": ["image", *map(said, labels)], "rows": rows,
                 "metric": "" if metric is None else self._tables.head(metric)}
            )  # fmt: skip
        return grids

    def of_cascades(self, model: str) -> list[dict[str, Any]]:
        """Give a grid for each order: a row a method, a column a step; first case and target."""
        own = self._rows[(self._rows["model"] == model) & (self._rows["method"] != "")]
        place = own["stage"].astype(str).str.extract(_STAGE.pattern)
        own = own.assign(order=place[0], step=place[1])
        steps = own[own["step"].notna()].astype({"step": int})
        grids = []
        for order in dict.fromkeys(steps["order"]):
            part = steps[steps["order"] == order]
            first = part.iloc[0]
            case, target, seed = (first[name] for name in ("case", "target", "seed"))
            chosen = (part["case"] == case) & (part["target"] == target) & (part["seed"] == seed)
            part = part[chosen]
            ground = self._ground(case, model, target)
            trained = self._of(model, ORIGINAL)
            trained = trained[(trained["case"] == case) & (trained["target"] == target)]
            numbers = sorted(set(part["step"]))
            rows = []
            for label in self._tables.labels:
                known = part[part["method"] == label].drop_duplicates("step").set_index("step")
                if known.empty:
                    continue
                before = trained[trained["method"] == label]
                cells = [self._cell(ground, None if before.empty else before.iloc[0],
                                    f"{said(label)}, trained", float("nan"))]  # fmt: skip
                scores = self._similarities(model, order, case, target, seed, label)
                cells += [
                    self._cell(
                        ground, known.loc[k] if k in known.index else None,
                        f"{said(label)}, step {k}", scores.get(k, float("nan")),
                    )
                    for k in numbers
                ]  # fmt: skip
                rows.append({"name": said(label), "cells": cells})
            grids.append(
                {"order": order, "case": case, "target": target, "rows": rows,
                 "metric": self._tables.head(_SIMILARITY),
                 "heads": ["trained", *(f"step {k}" for k in numbers)]}
            )  # fmt: skip
        return grids

    def _of(self, model: str, stage: str) -> pd.DataFrame:
        rows = self._rows
        is_map = (rows["model"] == model) & (rows["stage"] == stage) & (rows["method"] != "")
        return rows[is_map]

    def _captions(
        self, model: str, target: str
    ) -> tuple[str | None, Mapping[tuple[str, str], float]]:
        """Metric that is written below the maps, and its values by case and method."""
        rows = self._tables.scores(model)
        rows = rows[(rows["target"] == target) & rows["value"].notna()]
        for metric in _CAPTIONS:
            own = rows[rows["metric"] == metric]
            if len(own):
                return metric, {
                    (row["case"], row["method"]): float(row["value"])
                    for row in own.to_dict("records")
                }
        return None, {}

    def _similarities(
        self, model: str, order: str, case: str, target: str, seed: int, label: str
    ) -> dict[int, float]:
        rows = self._tables.assessment.scores
        rows = rows[
            (rows["model"] == model) & (rows["case"] == case) & (rows["target"] == target)
            & (rows["seed"] == seed) & (rows["method"] == label)
            & (rows["metric"] == _SIMILARITY)
        ]  # fmt: skip
        place = rows["stage"].astype(str).str.extract(_STAGE.pattern)
        own = rows.assign(order=place[0], step=place[1])
        own = own[own["order"] == order]
        return {int(k): float(v) for k, v in zip(own["step"], own["value"], strict=True)}

    def _ground(self, case: str, model: str, target: str) -> _Ground:
        rows = self._rows
        own = rows[
            (rows["case"] == case) & (rows["model"] == model) & (rows["target"] == target)
            & (rows["method"] == "")
        ]  # fmt: skip
        files = dict(zip(own["stage"], own["file"], strict=True))
        planes = self._tables.assessment.planes
        truth = planes.get(files.get("truth", ""))
        return _Ground(planes.get(files.get("image", "")), truth, self.side)

    def _cell(
        self, ground: _Ground, row: pd.Series[Any] | None, name: str, score: float
    ) -> dict[str, Any] | None:
        if row is None:
            return None
        pixels = self._tables.assessment.planes[str(row["file"])]
        is_empty = not float(row["high"]) > float(row["low"])
        text = "zero everywhere" if is_empty else "" if np.isnan(score) else number(score, 2)
        return ground.cell(np.zeros_like(pixels) if is_empty else pixels, name, text)


class _Ground:
    """An image that maps are drawn on, with the outline of the truth."""

    def __init__(self, image: Bytes | None, truth: Bytes | None, side: int) -> None:
        self._image, self._truth, self._side = image, truth, side

    def cell(self, pixels: Bytes | None, name: str, text: str) -> dict[str, Any] | None:
        """Draw a map over the image; None: the image alone, if there is one."""
        shown = self._image if pixels is None else pixels
        if shown is None:
            return None
        scale = self._side / max(shown.shape)
        shape = (max(1, round(shown.shape[0] * scale)), max(1, round(shown.shape[1] * scale)))
        grey = np.zeros(shape) if self._image is None else _resized(self._image, shape) / 255
        colours = np.repeat(grey[..., None], 3, axis=-1)
        if pixels is not None:
            drawn = diverging(_resized(pixels, shape) / 255, 1.0)
            colours = colours * (1 - drawn[..., 3:]) + drawn[..., :3] * drawn[..., 3:]
        image = np.rint(255 * colours).astype(np.uint8)
        if self._truth is not None:
            image[_outline(_resized(self._truth, shape) >= 128)] = _OUTLINE
        return {"uri": _uri(image), "alt": name, "text": text,
                "width": shape[1], "height": shape[0]}  # fmt: skip


def _resized(pixels: Bytes, shape: Sequence[int]) -> NDArray[np.float64]:
    image = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float64)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch one outside of it; the picture's edge is outside."""
    padded = np.pad(mask, 1)
    core = padded[1:-1, 1:-1].copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        core &= np.roll(padded, shift, axis)[1:-1, 1:-1]
    return mask & ~core


def _uri(pixels: Bytes) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=78, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
