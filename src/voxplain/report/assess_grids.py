"""Grids of maps: cases by methods, and methods by the steps of a cascade."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from voxplain.records.assessment import ORIGINAL
from voxplain.report.assess_planes import LEAST_SHADES, Ground, top
from voxplain.report.assess_tables import Tables, count, said
from voxplain.report.wording import number

N_TARGETS = 3
"""Targets of a case that are shown; the others are counted."""

_STAGE = re.compile(r"(.+):(\d+)")
_CAPTIONS = ("average_precision", "legacy_auprc", "faithfulness_correlation")
_SIMILARITY, _DICE = "ssim", "model_dice"
# a lossy picture of noise takes up to half a byte a pixel, and a third more as text
_MOST_PIXELS = 5_500_000
_MOST, _LEAST = 192, 48  # longer side of a picture in pixels


class Grids:
    """The kept planes of an assessment, drawn over their images.

    Every plane has its own scale, see `voxplain.report.assess_planes.top`.

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
        """Give a grid for each order: a row a method, a column a step.

        It is of the first target that was kept, and of the kept case whose model Dice is nearest
        to the median over all cases (the first where no Dice is known); ``dice`` is that case's.
        """
        own = self._rows[(self._rows["model"] == model) & (self._rows["method"] != "")]
        place = own["stage"].astype(str).str.extract(_STAGE.pattern)
        own = own.assign(order=place[0], step=place[1])
        steps = own[own["step"].notna()].astype({"step": int})
        grids = []
        for order in dict.fromkeys(steps["order"]):
            part = steps[steps["order"] == order]
            target = part["target"].iloc[0]
            part = part[part["target"] == target]
            case, dice = self._middle_case(model, target, list(dict.fromkeys(part["case"])))
            part = part[part["case"] == case]
            seed = part["seed"].iloc[0]
            part = part[part["seed"] == seed]
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
                 "dice": "" if np.isnan(dice) else number(dice, 2),
                 "metric": self._tables.head(_SIMILARITY),
                 "heads": ["trained", *(f"step {k}" for k in numbers)]}
            )  # fmt: skip
        return grids

    def _middle_case(self, model: str, target: str, cases: list[str]) -> tuple[str, float]:
        """Kept case whose model Dice is nearest to the median of all, and its Dice (NaN: none)."""
        rows = self._tables.assessment.scores
        rows = rows[
            (rows["model"] == model) & (rows["target"] == target) & (rows["method"] == "")
            & (rows["stage"] == ORIGINAL) & (rows["metric"] == _DICE) & rows["value"].notna()
        ]  # fmt: skip
        known = {str(row["case"]): float(row["value"]) for row in rows.to_dict("records")}
        kept = [case for case in cases if case in known]
        if not kept:
            return cases[0], float("nan")
        middle = float(np.median(list(known.values())))
        case = min(kept, key=lambda one: abs(known[one] - middle))
        return case, known[case]

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

    def _ground(self, case: str, model: str, target: str) -> Ground:
        rows = self._rows
        own = rows[
            (rows["case"] == case) & (rows["model"] == model) & (rows["target"] == target)
            & (rows["method"] == "")
        ]  # fmt: skip
        files = dict(zip(own["stage"], own["file"], strict=True))
        planes = self._tables.assessment.planes
        truth = planes.get(files.get("truth", ""))
        return Ground(planes.get(files.get("image", "")), truth, self.side)

    def _cell(
        self, ground: Ground, row: pd.Series[Any] | None, name: str, score: float
    ) -> dict[str, Any] | None:
        if row is None:
            return None
        pixels = self._tables.assessment.planes[str(row["file"])]
        if not float(row["high"]) > float(row["low"]):
            return ground.cell(np.zeros_like(pixels), name, "zero everywhere")
        words = [] if np.isnan(score) else [number(score, 2)]
        if words and int(row["axis"]) >= 0:
            words.append("(volume)")
        strongest = top(pixels)
        if strongest == 0:
            words.append("nothing in this plane")
        elif strongest < LEAST_SHADES:
            words.append(f"coarse: {count(strongest, 'shade')}")
        return ground.cell(pixels, name, " ".join(words))
