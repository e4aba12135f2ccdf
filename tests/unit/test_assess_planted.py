"""Planted truths: a shortcut is told, and maps that ignore the weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from voxplain.assess.asked import Asked
from voxplain.assess.baseline_maps import edges
from voxplain.assess.rows import ListedCase
from voxplain.assess.run import assess
from voxplain.assess.settings import AssessSettings
from voxplain.assess.subject import Subject
from voxplain.attribution import Gradient, InputXGradient
from voxplain.attribution.method import Method, Outcome
from voxplain.attribution.question import Question
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.models import wrap
from voxplain.models.model import Model
from voxplain.records.attribution import Kind
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.models import SmallNet
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((12, 13, 14))
ORGAN = (slice(3, 8), slice(4, 10), slice(5, 10))
CORNER = (slice(8, 10), slice(1, 3), slice(2, 4))
N_CASES = 8


class Looks(torch.nn.Module):
    """Sums the image over one place, whatever else there is: the logit of `organ` everywhere."""

    def __init__(self, place: tuple[slice, ...]) -> None:
        super().__init__()
        weight = torch.zeros(GRID.shape)
        weight[place] = 1.0
        self.weight = torch.nn.Parameter(weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        seen = (windows[:, 0] * self.weight).sum((1, 2, 3)).reshape(-1, 1, 1, 1, 1)
        logit = seen - 10.0 + 0.0 * windows
        return torch.cat([torch.zeros_like(logit), logit], 1)


def cases(seed: int = 0) -> list[ListedCase]:
    """An organ of its own brightness and a marker that goes with it, in every case."""

    def read(i: int) -> Subject:
        rng = np.random.default_rng([seed, i])
        data = rng.uniform(0, 0.2, (1, *GRID.shape))
        data[0][ORGAN] += rng.uniform(0.8, 1.2)
        data[0][CORNER] += 4.0
        truth = np.zeros((1, *GRID.shape), np.uint8)
        truth[0][ORGAN] = 1
        labels = LabelMap(truth, GRID, {0: "background", 1: "organ"})
        return Subject(Volume(data, GRID, name=f"case_{i}"), f"patient_{i}", labels)

    return [
        ListedCase(f"case_{i}", f"patient_{i}", lambda i=i: read(i)) for i in range(N_CASES)
    ]  # fmt: skip


def verdicts(
    model: Model, methods: Mapping[str, Method], settings: AssessSettings, place: Path
) -> dict[tuple[str, str], str]:
    asked = Asked(
        {"m": model}, cases(), methods, ["class:organ"], settings,
        compute=Compute("cpu", "float64"),
    )  # fmt: skip
    found = assess(asked, place).findings
    return {(one.code, str(one.target).partition(" · ")[2]): one.outcome for one in found}


@pytest.mark.parametrize(
    ("place", "outcome"), [(CORNER, "issue"), (ORGAN, "passed")], ids=["shortcut", "organ"]
)
def test_a_shortcut_is_told(tmp_path: Path, place: tuple[slice, ...], outcome: str) -> None:
    model = wrap(
        Looks(place), classes=["background", "organ"], channels=["x"], window=GRID.shape,
        check=False,
    )  # fmt: skip
    settings = AssessSettings(
        groups=("utility", "faithfulness"), n_runs=40, baselines=("random", "edges", "center")
    )
    methods = {"gradient": Gradient(), "input_x_gradient": InputXGradient()}
    found = verdicts(model, methods, settings, tmp_path)
    for method in methods:
        assert found["VX205", method] == outcome  # utility above chance
        assert found["VX209", method] == "passed"  # the map is right: the model is not
        if outcome == "issue":
            assert found["VX202", method] == "issue"  # trivial maps find the organ better


@dataclass(frozen=True)
class Edges:
    """A method that looks at the image alone."""

    name: ClassVar[str] = "edges"
    kind: ClassVar[Kind] = "localisation"
    unit: ClassVar[str] = "1"
    has_channels: ClassVar[bool] = False
    is_adaptive: ClassVar[bool] = False

    def passes(self, question: Question) -> Passes:
        return Passes()

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        found = torch.from_numpy(edges(question.pipeline.image))[None, None]
        emit(question.pipeline.plan.inner(), found.expand(len(question.targets), -1, -1, -1, -1))
        return Outcome()


def test_edges_fail_randomisation_and_the_gradient_passes(tmp_path: Path) -> None:
    """On a network that never learnt anything: the check is about maps, not about training."""
    net = SmallNet(3, 1, 2, seed=3)
    model = wrap(
        net, classes=["background", "organ"], channels=["x"], window=(8, 9, 10), check=False
    )
    settings = AssessSettings(groups=("randomisation",), n_stages=2, baselines=("random",))
    settings = replace(settings, n_pictures=0)
    methods = {"edges": Edges(), "gradient": Gradient()}
    found = verdicts(model, methods, settings, tmp_path)
    assert found["VX201", "edges"] == "issue"
    assert found["VX201", "gradient"] == "passed"
