"""What is run is what was told before: counted by a network that records its windows."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.attribution import (
    ClassTarget,
    Difference,
    FunctionTarget,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Mask,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
    Voxel,
    estimate,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import ModelError, TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.models import Constant, Recorder, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")
ONE = Compute("cpu", batch_size=1)
PLAN = WindowPlan(GRID.shape, WINDOW)


class _Counted(torch.autograd.Function):
    """Identity that counts the windows of a backward pass."""

    @staticmethod
    def forward(ctx: Any, windows: torch.Tensor, counter: list[int]) -> torch.Tensor:
        ctx.counter = counter
        return windows.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.counter.append(len(gradient))
        return gradient, None


class Counting(Recorder):
    """Records forward windows, counts backward ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.backward_windows: list[int] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        counted = _Counted.apply(windows, self.backward_windows)  # type: ignore[no-untyped-call]
        return super().forward(counted)


def box_mask(*ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


# the lesion lies in one corner, the organ reaches over most of one side
LESION = Mask(LabelMap.of(box_mask((0, 1), (7, 9), (11, 13)), GRID), name="lesion")
ORGAN = Mask(LabelMap.of(box_mask((0, 1), (3, 9), (2, 13)), GRID), name="organ")
# two voxels in opposite corners: the box around them is everything, the windows are few
APART = box_mask((0, 1), (0, 1), (0, 1)) | box_mask((4, 5), (8, 9), (12, 13))
CORNERS = Mask(LabelMap.of(APART, GRID), name="corners")

TARGETS: dict[str, list[Target]] = {
    "fixed": [ClassTarget("class_1")],
    "every class": [ClassTarget(name) for name in ("background", "class_1", "class_2")],
    "lesion logit": [ClassTarget("class_1", LESION)],
    "lesion probability": [ClassTarget("class_1", LESION, score="probability")],
    "corners margin": [ClassTarget("class_1", CORNERS, score="margin")],
    "lesion weighted": [ClassTarget("class_1", LESION, reduction="weighted")],
    "dice": [ClassTarget("class_1", LESION, reduction="dice")],
    "lesion and organ": [ClassTarget("class_1", LESION), ClassTarget("class_2", ORGAN)],
    "fixed and moving": [ClassTarget("class_1", ORGAN), ClassTarget("class_2", LESION, "margin")],
    "two moving": [
        ClassTarget("class_1", LESION, score="probability"),
        ClassTarget("class_2", ORGAN, score="log_odds"),
    ],
    "far apart": [
        ClassTarget("class_1", Voxel((0, 0, 0)), score="margin"),
        ClassTarget("class_1", Voxel((4, 8, 12)), score="margin"),
    ],
    "difference": [Difference(ClassTarget("class_1", LESION), ClassTarget("class_2", ORGAN))],
    "function": [FunctionTarget(lambda L: (L[0] * L[1]).sum(), "f")],
    "many": [
        ClassTarget(f"class_{1 + i % 2}", ORGAN, score="probability", label=f"organ {i}")
        for i in range(4)
    ],
    "dominant class of a mask": [ClassTarget(None, LESION)],
    "dominant classes": [ClassTarget(None, ORGAN, label=f"organ {i}") for i in range(3)],
}
METHODS: list[Method] = [
    Gradient(),
    InputXGradient(),
    SmoothGrad(n=3),
    SmoothGrad(n=2, antithetic=True),
    SmoothGradSquared(n=2),
    VarGrad(n=2),
    IntegratedGradients(n=2),
    IntegratedGradients(n=3, rule="agg2exp"),
]


@pytest.fixture
def image() -> Volume:
    return volume(GRID, seed=1)


@pytest.fixture
def net() -> Counting:
    return Counting(SmallNet(3, 1, 3, seed=2))


def model_of(net: nn.Module) -> Model:
    return describe(net, n_classes=3, window=WINDOW)


def told(model: Model, image: Volume, targets: list[Target], method: Method,
         regions: LabelMap | None) -> tuple[int, int]:  # fmt: skip
    """Passes of the clean input and those that the method tells."""
    with open_pipeline(model, image, ONE) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        _ = question.regions, question.linear
        passes = method.passes(question)
        return pipeline.passes.n_forward + passes.n_forward, passes.n_backward


BASIC: list[Method] = [Gradient(), SmoothGrad(n=2), IntegratedGradients(n=2)]
CASES: list[tuple[str, Method, LabelMap | None]] = [
    (name, method, labels(GRID)) for name in TARGETS for method in BASIC
]
CASES += [(name, method, None) for name in ("fixed", "two moving") for method in METHODS]


@pytest.mark.parametrize(
    ("name", "method", "regions"),
    CASES,
    ids=[f"{n}-{m.name}-{'predicted' if r is None else 'regions'}" for n, m, r in CASES],
)
def test_passes_are_those_told(
    net: Counting, image: Volume, name: str, method: Method, regions: LabelMap | None
) -> None:
    targets = TARGETS[name]
    wanted = told(model_of(net), image, targets, method, regions)
    net.clear()
    net.backward_windows.clear()
    result = explain(
        model_of(net), image, targets, method, regions=regions, keep=False, compute=ONE
    )
    cost = result.provenance.cost
    assert (cost.n_forward, cost.n_backward) == wanted
    assert net.n_windows == cost.n_forward
    assert sum(net.backward_windows) == cost.n_backward > 0


def windows_of(mask: np.ndarray) -> list[int]:
    return [i for i in range(len(PLAN)) if mask[PLAN.box(i).slices].any()]


@pytest.mark.parametrize(("where", "n"), [(LESION, None), (ORGAN, None), (CORNERS, 2)])
def test_windows_that_do_not_touch_the_target_are_never_run(
    net: Counting, image: Volume, where: Mask, n: int | None
) -> None:
    mask = where.on(GRID)
    needed = windows_of(mask)
    assert n is None or len(needed) == n
    assert len(needed) < len(PLAN)
    result = explain(model_of(net), image, ClassTarget("class_1", where), Gradient(),
                     regions=labels(GRID), compute=ONE)  # fmt: skip
    assert result.targets[0].n_windows == len(needed)
    assert sum(net.backward_windows) == len(needed)
    # with a graph: the last ones; before them the clean logits on the target's box
    ran = [batch[0].numpy() for batch in net.batches[-len(needed) :]]
    wanted = [image.data[(slice(None), *PLAN.box(i).slices)] for i in needed]
    assert all(np.array_equal(a, b) for a, b in zip(ran, wanted, strict=True))


def test_targets_share_forward_passes(net: Counting, image: Volume) -> None:
    def passes(*targets: Target) -> tuple[int, int]:
        result = explain(model_of(net), image, targets, SmoothGrad(n=2), compute=ONE)
        return result.provenance.cost.n_forward, result.provenance.cost.n_backward

    lesion, organ = ClassTarget("class_1", LESION), ClassTarget("class_2", ORGAN)
    one, other, both = passes(lesion), passes(organ), passes(lesion, organ)
    union = set(windows_of(LESION.on(GRID))) | set(windows_of(ORGAN.on(GRID)))
    assert both[0] == len(PLAN) + 2 * len(union) < one[0] + other[0] - len(PLAN)
    assert both[1] == one[1] + other[1]


def test_the_clean_logits_are_shared_between_targets(net: Counting, image: Volume) -> None:
    """No window is predicted twice for the clean input, however many targets there are."""
    targets = [*TARGETS["many"], ClassTarget("class_1", LESION, score="probability")]
    result = explain(model_of(net), image, targets, Gradient(), regions=labels(GRID), compute=ONE)
    n_active = len(windows_of(ORGAN.on(GRID) | LESION.on(GRID)))
    n_clean = result.provenance.cost.n_forward - n_active
    assert n_clean <= len(PLAN)


def test_larger_batches_waste_at_most_a_fifth_of_the_backward_passes(
    net: Counting, image: Volume
) -> None:
    targets = [*TARGETS["lesion and organ"], ClassTarget("class_2", CORNERS)]
    for batch_size in (2, 5, 50):
        net.clear()
        net.backward_windows.clear()
        result = explain(model_of(net), image, targets, SmoothGrad(n=3), regions=labels(GRID),
                         compute=Compute("cpu", batch_size=batch_size))  # fmt: skip
        cost = result.provenance.cost
        assert net.n_windows == cost.n_forward
        assert max(len(batch) for batch in net.batches) > 1
        assert cost.n_backward <= sum(net.backward_windows) <= 1.2 * cost.n_backward


def test_progress_ends_at_what_was_told(net: Counting, image: Volume) -> None:
    told_: list[tuple[int, int]] = []
    explain(model_of(net), image, TARGETS["two moving"], SmoothGrad(n=2), compute=ONE,
            progress=lambda done, total: told_.append((done, total)))  # fmt: skip
    done = [d for d, _ in told_]
    assert done == sorted(done)
    assert all(d <= total for d, total in told_)
    after_prediction = [(d, t) for d, t in told_ if d > len(PLAN)]
    assert len({total for _, total in after_prediction}) == 1
    assert told_[-1][0] == told_[-1][1]


# -- estimate -------------------------------------------------------------------------------
def compare(
    net: Counting, image: Volume, targets: list[Target], method: Method, regions: LabelMap | None
) -> tuple[tuple[int, int], tuple[int, int], bool]:
    told_ = estimate(model_of(net), image, targets, method, regions=regions, compute=ONE)
    result = explain(model_of(net), image, targets, method, regions=regions, compute=ONE)
    cost = result.provenance.cost
    assert told_.n_windows == len(PLAN)
    assert told_.seconds > 0
    assert told_.memory_bytes > 0
    return (
        (told_.n_forward, told_.n_backward),
        (cost.n_forward, cost.n_backward),
        told_.is_upper_bound,
    )


@pytest.mark.parametrize("method", [Gradient(), SmoothGrad(n=2)])
@pytest.mark.parametrize("name", ["every class", "fixed and moving", "far apart", "dice"])
def test_estimate_is_exact(net: Counting, image: Volume, name: str, method: Method) -> None:
    targets = TARGETS[name]
    told_, took, is_bound = compare(net, image, targets, method, None)
    assert told_ == took
    assert not is_bound


@pytest.mark.parametrize("regions", [labels(GRID), None], ids=["regions", "predicted"])
@pytest.mark.parametrize("method", [Gradient(), InputXGradient(), SmoothGrad(n=2)])
@pytest.mark.parametrize("name", ["fixed and moving", "dominant classes", "many"])
def test_estimate_without_a_prediction_is_a_bound(
    net: Counting, image: Volume, name: str, method: Method,
    regions: LabelMap | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(import_module("voxplain.attribution.estimate"), "_EXACT_SECONDS", 0.0)
    told_, took, is_bound = compare(net, image, TARGETS[name], method, regions)
    assert is_bound
    assert told_[0] >= took[0]
    assert told_[1] >= took[1]


def test_estimate_refuses_what_explain_refuses(image: Volume) -> None:
    model = describe(Constant([1.0, 2.0, 3.0], is_connected=False), window=WINDOW)
    with pytest.raises(ModelError, match="do not depend on the input"):
        estimate(model, image, "all", "gradient", compute=ONE)
    with pytest.raises(TargetError, match="no class 'clas_1'; did you mean 'class_1'"):
        estimate(model_of(SmallNet(3, 1, 3)), image, "class:clas_1", "gradient", compute=ONE)


def test_estimate_leaves_the_model_as_it_was(image: Volume) -> None:
    net = SmallNet(3, 1, 3).train()
    estimate(model_of(net), image, "all", "gradient", compute=ONE)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_more_targets_and_maps_need_more_memory(image: Volume) -> None:
    model = model_of(SmallNet(3, 1, 3))
    one = estimate(model, image, "class:class_1", "gradient", compute=ONE).memory_bytes
    every = estimate(model, image, "all", "gradient", compute=ONE).memory_bytes
    assert every - one == 2 * 3 * 4 * GRID.n_voxels
