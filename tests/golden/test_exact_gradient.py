"""The windowed gradient equals autograd through the full stitching."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from voxplain.attribution import ClassTarget, Difference, FunctionTarget, Mask, estimate, explain
from voxplain.attribution.scores import Score
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute
from voxplain.models import Model, wrap
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import Blend, WindowPlan, WindowSettings
from voxplain.testing.models import Mirrored, SmallNet
from voxplain.testing.phantoms import oblique_grid

CLASSES = ("background", "left", "right")


def stitched(model: Model, image: Volume, x: torch.Tensor) -> torch.Tensor:
    """Stitch every window in one graph: the definition, with no sharing and no skipping."""
    settings = model.info.window
    assert settings is not None
    plan = WindowPlan(image.grid.shape, settings)
    pads: list[int] = []
    for before, n, padded in zip(
        reversed(plan.pad_before), reversed(plan.shape), reversed(plan.padded_shape), strict=True
    ):
        pads += [before, padded - n - before]
    padded = torch.nn.functional.pad(x, pads, value=settings.pad_value)
    total = torch.zeros((model.info.n_classes, *plan.padded_shape), dtype=x.dtype)
    norm = torch.zeros(plan.padded_shape, dtype=x.dtype)
    weight = torch.from_numpy(plan.weight.copy()).to(x.dtype)
    for i in range(len(plan)):
        place = (slice(None), *plan.box(i).slices)
        total[place] = total[place] + weight * model.module(padded[place][None])[0]
        norm[place[1:]] += weight
    return (total / norm)[(slice(None), *plan.inner().slices)]


def dice(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    p = torch.softmax(logits, 0)[1]
    return 2 * (p * mask).sum() / (p.sum() + mask.sum())


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


KINDS = ["predicted", "probability", "dice", "margin", "log_odds", "mean", "difference", "function"]


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> tuple[Callable[[LabelMap], Target], Callable]:
    """A target, and its number as a function of logits, given mask and clean logits."""
    kind = request.param

    def target(mask: LabelMap) -> Target:
        over = Mask(mask)
        return {
            "predicted": ClassTarget("left"),
            "probability": ClassTarget("left", over, score="probability"),
            "dice": ClassTarget("left", over, reduction="dice"),
            "margin": ClassTarget("right", over, score="margin"),
            "log_odds": ClassTarget("right", over, score="log_odds"),
            "mean": ClassTarget("left", over, reduction="mean"),
            "difference": Difference(
                ClassTarget("left", over), ClassTarget("right", over, score="probability")
            ),
            "function": FunctionTarget(lambda L: (L[1] * L[2]).mean().tanh(), "product"),
        }[kind]

    def score(L: torch.Tensor, m: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(L, 0)
        return {
            "predicted": (L[1] * (clean.argmax(0) == 1)).sum(),
            "probability": (p[1] * m).sum(),
            "dice": dice(L, m),
            "margin": ((L[2] - torch.maximum(L[0], L[1])) * m).sum(),
            "log_odds": (torch.log(p[2] / (1 - p[2])) * m).sum(),
            "mean": (L[1] * m).sum() / m.sum(),
            "difference": ((L[1] - p[2]) * m).sum(),
            "function": (L[1] * L[2]).mean().tanh(),
        }[kind]

    return target, score


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "window"),
    [((9, 14, 11), (6, 5, 7)), ((5, 14, 4), (6, 5, 7)), ((17, 12), (6, 5)), ((4, 19), (6, 5))],
)
@pytest.mark.parametrize(("precision", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
def test_equals_full_autograd(
    case: tuple[Callable, Callable], blend: Blend, shape: tuple[int, ...], window: tuple[int, ...],
    precision: str, bound: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng([len(blend), *shape])
    grid = oblique_grid(shape) if len(shape) == 3 else Grid(shape, np.diag([0.7, 1.1, 1.0]))
    net = SmallNet(len(shape), n_channels=2, n_classes=3, seed=4)
    model = wrap(
        net,
        classes=CLASSES,
        channels=("a", "b"),
        window=WindowSettings(window, overlap=0.4, blend=blend, pad_value=0.3),
    )
    image = Volume(rng.normal(size=(2, *shape)), grid)
    mask = LabelMap((rng.random((1, *shape)) < 0.3).astype(np.uint8), grid, {1: "m"})
    target, score = case

    net.double()
    x = torch.from_numpy(image.data).requires_grad_()
    logits = stitched(model, image, x)
    value = score(logits, torch.from_numpy(mask.mask("m")).double(), logits.detach())
    wanted = torch.autograd.grad(value, x)[0].numpy()
    net.float()

    for batch_size in (1, 3):
        result = explain(
            model, image, target(mask), "gradient",
            compute=Compute(device="cpu", precision=precision, batch_size=batch_size),  # type: ignore[arg-type]
        )  # fmt: skip
        (found,) = result.attributions.values()
        assert relative_error(found.values, wanted) <= bound
        assert result.targets[0].score == pytest.approx(value.item(), rel=bound, abs=bound)


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_mirrored_ensemble_equals_full_autograd(score: Score, batch_size: int) -> None:
    rng = np.random.default_rng(3)
    shape, window = (9, 7, 11), WindowSettings((6, 5, 7), overlap=0.4, pad_value=0.2)
    nets = [SmallNet(3, 2, 3, seed=k).double() for k in range(2)]
    model = Mirrored(nets, (0, 2), n_channels=2, window=window)
    image = Volume(rng.normal(size=(2, *shape)), oblique_grid(shape))
    mask = LabelMap((rng.random((1, *shape)) < 0.3).astype(np.uint8), image.grid, {1: "m"})

    def mean(x: torch.Tensor) -> torch.Tensor:
        views = [net(x.flip(axes)).flip(axes) for net in nets for axes in ((), (2,), (4,))]
        return torch.stack(views).mean(0)

    x = torch.from_numpy(image.data).requires_grad_()
    logits = stitched(_Mean(mean, model), image, x)
    values = logits if score == "logit" else torch.softmax(logits, 0)
    value = (values[1] * torch.from_numpy(mask.mask("m"))).sum()
    wanted = torch.autograd.grad(value, x)[0].numpy()

    target = ClassTarget("class_1", Mask(mask), score=score)
    compute = Compute("cpu", precision="float64", batch_size=batch_size)
    expected = estimate(model, image, target, "gradient", compute=compute)
    result = explain(model, image, target, "gradient", compute=compute)
    (found,) = result.attributions.values()
    assert relative_error(found.values, wanted) <= 1e-10
    assert result.targets[0].score == pytest.approx(value.item(), rel=1e-10)
    cost = result.provenance.cost
    assert (cost.n_forward, cost.n_backward) == (expected.n_forward, expected.n_backward)
    assert cost.n_backward == 6 * result.targets[0].n_windows


class _Mean:
    """Stands in for a model whose one network is the mean over views."""

    def __init__(self, module: Callable[[torch.Tensor], torch.Tensor], model: Model) -> None:
        self.module, self.info = module, model.info
