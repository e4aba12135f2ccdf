"""What the tables of an assessment hold: models, methods, trivial maps, metrics, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from voxplain.records.assessment import ALL_TARGETS, BASELINE, ORIGINAL, Assessment
from voxplain.records.metric import Metric

FAMILIES = {
    "faithfulness": "Faithfulness: does the model need what the map marks?",
    "utility": "Utility: does the map show what is to be found?",
    "stability": "Stability: does a small change of the image leave the map as it is?",
    "complexity": "Complexity: how much does the map mark?",
    "efficiency": "Efficiency: what did the map cost?",
    "randomisation": "Randomisation",
    "agreement": "Agreement",
}
"""Families in the order of the page, and the question of each."""

METHOD, TRIVIAL, SECOND = "#0072b2", "#8b949e", "#d55e00"
"""Colours of methods, of trivial maps, and of what is held against them."""

_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
_UNITS = {"the target's": "in the target's unit", "the map's": "in the map's unit"}
HIGH_BASELINES = ("given:",)
"""Baselines that are no trivial maps, by the start of their name; as the checks take it."""


class Tables:
    """An assessment by its names, each in the order in which it first occurs.

    Parameters
    ----------
    assessment
        What is read.
    """

    def __init__(self, assessment: Assessment) -> None:
        self.assessment = assessment
        scores = assessment.scores
        self.models = _names(scores["model"])
        self.cases = _names(scores["case"])
        self.targets = _names(scores["target"])
        labels = _names(scores["method"])
        self.methods = [label for label in labels if not is_trivial(label)]
        self.trivial = [label for label in labels if is_trivial(label)]
        self._known = {metric.name: metric for metric in assessment.metrics}

    @property
    def labels(self) -> list[str]:
        """Methods, then trivial maps."""
        return [*self.methods, *self.trivial]

    def metrics(self, names: Sequence[str]) -> list[Metric]:
        """Return the meaning of those that occur in `names`, in the assessment's order."""
        wanted = set(names)
        return [metric for metric in self.assessment.metrics if metric.name in wanted]

    def head(self, name: str) -> str:
        """Write a metric's name as a head: with its arrow, and its unit if it has one."""
        metric = self._known.get(name)
        words = name.replace("_", " ")
        if metric is None:
            return words
        is_told = metric.unit == "1" or name == "seconds" or words.endswith(metric.unit.lower())
        unit = "" if is_told else f", {_UNITS.get(metric.unit, metric.unit)}"
        return f"{words}{unit} {_ARROWS[metric.direction]}".rstrip()

    def scores(self, model: str, stage: str = ORIGINAL) -> pd.DataFrame:
        """Return the scores of a model's maps at a stage."""
        rows = self.assessment.scores
        return rows[(rows["model"] == model) & (rows["stage"] == stage) & (rows["method"] != "")]

    def summary(self, model: str, stage: str = ORIGINAL, target: str = ALL_TARGETS) -> pd.DataFrame:
        """Return the summary of a model's maps at a stage."""
        rows = self.assessment.summary
        return rows[
            (rows["model"] == model)
            & (rows["stage"] == stage)
            & (rows["target"] == target)
            & (rows["method"] != "")
        ]

    def of_model(self) -> pd.DataFrame:
        """Return the summary of what the models did themselves, without any map."""
        rows = self.assessment.summary
        return rows[(rows["stage"] == ORIGINAL) & (rows["method"] == "")]


def is_trivial(label: str) -> bool:
    """Whether a label is that of a trivial map."""
    return label.startswith(BASELINE)


def is_rival(label: str) -> bool:
    """Whether a label is that of a trivial map that a method has to beat."""
    return is_trivial(label) and not said(label).startswith(HIGH_BASELINES)


def said(label: str) -> str:
    """Write a label: a trivial map without the word before it."""
    return label.removeprefix(BASELINE)


def colour(label: str) -> str:
    """Colour of a label, ``#rrggbb``."""
    return TRIVIAL if is_trivial(label) else METHOD


def count(n: int, word: str) -> str:
    """Write a number of things."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _names(column: pd.Series[str]) -> list[str]:
    return [str(name) for name in dict.fromkeys(column) if str(name) != ""]
