"""Targets of classifiers: the class predicted, and the margin to the runner-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    Instance,
    Predicted,
    estimate,
    explain,
)
from voxplain.attribution.parse import target_of, targets_of
from voxplain.attribution.targets import Target
from voxplain.errors import TargetError
from voxplain.inference.compute import Compute
from voxplain.models import Model, wrap
from voxplain.models.model import Activation
from voxplain.records import Explanation
from voxplain.space.volume import Volume
from voxplain.testing.models import Linear, Pooled, Recorder
from voxplain.testing.phantoms import oblique_grid

EXACT = Compute("cpu", precision="float64")
SHAPE = (5, 7, 11)
N_VOXELS = 5 * 7 * 11
CLASSES = ("well", "ill", "worse")
ACTIVATIONS: tuple[Activation, ...] = ("softmax", "sigmoid")


def weights(seed: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).normal(size=(len(CLASSES), 2))
    return drawn.astype(np.float32).astype(np.float64)  # as a network keeps them


def image_of(seed: int) -> Volume:
    data = np.random.default_rng([seed, 1]).normal(0.7, 1, (2, *SHAPE))
    return Volume(data, oblique_grid(SHAPE))


def classifier(
    w: NDArray[np.float64], activation: Activation = "softmax", classes: Sequence[str] = CLASSES
) -> Model:
    return wrap(Pooled(Linear(w)), kind="classification", classes=list(classes),
                channels=["u", "v"], activation=activation, rank=3, check=False)  # fmt: skip


def run(model: Model, image: Volume, target: str | Target | Sequence[str | Target],
        **settings: Any) -> Explanation:  # fmt: skip
    return explain(model, image, target, "gradient", compute=EXACT, **settings)


def logits_of(w: NDArray[np.float64], image: Volume) -> NDArray[np.float64]:
    return np.asarray(w @ image.data.reshape(2, -1).mean(1))


def slopes(found: Explanation, target: str, per_logit: NDArray[np.float64]) -> None:
    """Every voxel's slope is that of the pooled linear network."""
    wanted = np.broadcast_to(per_logit[:, None, None, None] / N_VOXELS, (2, *SHAPE))
    np.testing.assert_allclose(found[target].values, wanted, rtol=0, atol=1e-14)


# -- the class predicted --------------------------------------------------------------------
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_largest_logit_is_predicted(activation: Activation, seed: int) -> None:
    w, image = weights(seed), image_of(seed)
    logits = logits_of(w, image)
    best = int(logits.argmax())
    found = run(classifier(w, activation), image, "predicted")
    (target,) = found.targets
    assert target.name == "predicted"
    assert target.description == f"logit of {CLASSES[best]}, the class predicted"
    assert target.score == pytest.approx(logits[best], abs=1e-12)
    slopes(found, "predicted", w[best])
    most = max(found.classes, key=lambda c: c.probability or 0)
    assert most.name == CLASSES[best]


def test_seeds_above_predict_different_classes() -> None:
    assert len({int(logits_of(weights(s), image_of(s)).argmax()) for s in range(4)}) > 1


def test_the_class_of_a_single_logit_is_predicted_whatever_it_says() -> None:
    w, image = -np.abs(weights(1)[:1]), image_of(1)
    assert logits_of(w, image)[0] < 0
    found = run(classifier(w, "sigmoid", ["ill"]), image, "predicted")
    slopes(found, "predicted", w[0])


def test_python_text_and_everywhere_agree() -> None:
    w, image = weights(2), image_of(2)
    model = classifier(w)
    one = run(model, image, ClassTarget())
    two = run(model, image, ClassTarget(None, Everywhere()))
    assert target_of("predicted") == ClassTarget()
    assert target_of(" predicted ") == ClassTarget(None, Predicted())
    assert np.array_equal(one["predicted"].values, two["everywhere"].values)


def test_beside_its_own_name_and_in_differences() -> None:
    w, image = weights(3), image_of(3)
    best = int(logits_of(w, image).argmax())
    other = CLASSES[(best + 1) % 3]
    name = f"predicted minus {other}"
    found = run(classifier(w), image, ["all", "predicted", f"predicted minus class:{other}"])
    assert [t.name for t in found.targets] == [*CLASSES, "predicted", name]
    assert np.array_equal(found["predicted"].values, found[CLASSES[best]].values)
    slopes(found, name, w[best] - w[(best + 1) % 3])


def test_the_class_is_held_for_changed_inputs() -> None:
    # the baseline, the image's negative, would be given to another class
    w, image = np.array([[1.0, 0.5], [-1.0, -0.5], [0.0, 0.0]]), image_of(0)
    data = np.abs(image.data)
    image = Volume(data, image.grid)
    found = explain(classifier(w), image, "predicted", "smoothgrad", compute=EXACT)
    slopes(found, "predicted", w[0])
    found = explain(classifier(w), image, "predicted", "integrated_gradients", compute=EXACT)
    wanted = w[0][:, None, None, None] * data / N_VOXELS
    np.testing.assert_allclose(found["predicted"].values, wanted, atol=1e-12)


def test_no_pass_beside_those_of_a_named_class() -> None:
    w, image = weights(0), image_of(0)
    best = CLASSES[int(logits_of(w, image).argmax())]
    counts = []
    for target in ("predicted", f"class:{best}"):
        network = Recorder(Pooled(Linear(w)))
        model = wrap(network, kind="classification", classes=list(CLASSES), channels=["u", "v"],
                     rank=3, check=False)  # fmt: skip
        network.clear()
        cost = run(model, image, target).provenance.cost
        counts.append((network.n_windows, cost.n_forward, cost.n_backward))
        told = estimate(model, image, target, "gradient", compute=EXACT)
        assert (told.n_forward, told.n_backward) == (cost.n_forward, cost.n_backward)
    assert counts[0] == counts[1]
    assert counts[0][0] == counts[0][1]


def test_names() -> None:
    assert ClassTarget().name == "predicted"
    assert ClassTarget(score="margin").name == "predicted[margin]"
    assert ClassTarget("ill").name == "ill"
    assert ClassTarget(label="answer").name == "answer"
    found = targets_of(["predicted", "all"], CLASSES, score="log_odds")
    assert [t.name for t in found] == [
        "predicted[log_odds]", *(f"{c}[log_odds]" for c in CLASSES)
    ]  # fmt: skip


def test_a_segmentation_predicts_no_class_of_the_image() -> None:
    model = wrap(Linear(weights(0)), classes=list(CLASSES), channels=["u", "v"], rank=3,
                 check=False)  # fmt: skip
    with pytest.raises(TargetError, match=r"predicts a class at every voxel.*class:worse.*voxel"):
        run(model, image_of(0), "predicted")
    with pytest.raises(TargetError, match="predicted: "):
        run(model, image_of(0), "predicted minus class:ill")


@pytest.mark.parametrize("where", [Predicted(hold=False), Instance(1)])
def test_masks_that_need_a_class(where: Predicted | Instance) -> None:
    with pytest.raises(TargetError, match="needs a class"):
        ClassTarget(None, where)


def test_what_a_classifier_has_no_voxels_for() -> None:
    model, image = classifier(weights(0)), image_of(0)
    for text in ("voxel:1,2,3", "class:ill@instance:1"):
        with pytest.raises(TargetError, match="class:NAME alone, or predicted"):
            run(model, image, text)
    with pytest.raises(TargetError, match="leave the reduction out"):
        run(model, image, ClassTarget(reduction="mean"))


# -- the margin -----------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_softmax_margin_is_the_difference_to_the_runner_up(seed: int) -> None:
    w, image = weights(seed), image_of(seed)
    logits = logits_of(w, image)
    targets = targets_of(["all", "predicted"], CLASSES, score="margin")
    found = run(classifier(w), image, targets)
    best, second = np.argsort(-logits)[:2]
    for k, name in enumerate(CLASSES):
        other = second if k == best else best
        slopes(found, f"{name}[margin]", w[k] - w[other])
    score = {t.name: t.score for t in found.targets}
    assert score["predicted[margin]"] == pytest.approx(logits[best] - logits[second], abs=1e-12)
    assert score["predicted[margin]"] > 0
    assert sum(value > 0 for name, value in score.items() if name != "predicted[margin]") == 1
    slopes(found, "predicted[margin]", w[best] - w[second])
    assert found["predicted[margin]"].unit == "margin per intensity"


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[:1]])
def test_sigmoid_margin_is_the_logit(classes: tuple[str, ...]) -> None:
    w, image = weights(1)[: len(classes)], image_of(1)
    found = run(classifier(w, "sigmoid", classes), image,
                targets_of("all", classes, score="margin"))  # fmt: skip
    for k, name in enumerate(classes):
        slopes(found, f"{name}[margin]", w[k])


def test_the_margin_of_two_classes_is_their_log_odds_and_difference() -> None:
    w, image = weights(2)[:2], image_of(2)
    model = classifier(w, "softmax", CLASSES[:2])
    margin = run(model, image, ClassTarget("ill", score="margin"))
    odds = run(model, image, ClassTarget("ill", score="log_odds"))
    both = run(model, image, "class:ill minus class:well")
    slopes(margin, "ill[margin]", w[1] - w[0])
    slopes(odds, "ill[log_odds]", w[1] - w[0])
    slopes(both, "ill minus well", w[1] - w[0])


def test_a_margin_needs_an_activation() -> None:
    with pytest.raises(TargetError, match="needs an activation"):
        run(classifier(weights(0), "none"), image_of(0), ClassTarget("ill", score="margin"))
