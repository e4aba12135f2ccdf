"""Cascading randomisation: maps of a network that forgets, layer by layer, what it learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.assess.randomised import Statistics, WeightLayer, randomised, weight_layers
from voxplain.attribution.ask import ask
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.one import Progress
from voxplain.attribution.parse import targets_of
from voxplain.attribution.question import Question
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, Pipeline, open_pipeline
from voxplain.models.model import Model, decide
from voxplain.records.metric import EMPTY_MASK, Measured, Metric
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

Order = Literal["top_down", "bottom_up", "independent"]

TARGET_CHANGE = Metric(
    "target_change", "randomisation", "none", "1", 0.0, float("inf"),
    "|T' − T| / |T| of the target's value T on the trained and T' on the randomised network.",
    "Absent class: NaN, empty mask. NaN where T is 0.",
    "beside Adebayo et al. 2018, arXiv 1810.03292",
)  # fmt: skip
PREDICTION_CHANGE = Metric(
    "prediction_change", "randomisation", "none", "1", 0.0, 1.0,
    "Segmentation: 1 − 2·(voxels with one label above 0 in both) / (voxels above 0 in either, "
    "summed). Classification: half of Σ|p' − p| (softmax) or the mean of |p' − p| (sigmoid).",
    "Nothing predicted before and after: NaN, empty mask. NaN for a classifier without activation.",
    "Dice 1945; total variation",
)  # fmt: skip
PREDICTION_FLIP = Metric(
    "prediction_flip", "randomisation", "none", "1", 0.0, 1.0,
    "1 if a classifier decides for other classes than the trained one, else 0.",
    "Does not look at maps.",
    "beside Arun et al. 2021, where the class explained changes with it",
)  # fmt: skip
METRICS = (TARGET_CHANGE, PREDICTION_CHANGE, PREDICTION_FLIP)


class Magnitudes(Protocol):
    """Maps of all targets, such as `voxplain.attribution.maps.Maps`."""

    def magnitude(self) -> NDArray[np.float64]:
        """(n_targets, *image shape), at least 0."""


Source = Method | Callable[[Question], Magnitudes]
"""A method, or what makes maps of a question without one (edges, averages over noise). If it has
``passes(question)``, the estimate uses that."""

Similarity = Callable[[NDArray[np.floating], NDArray[np.floating]], Measured]
"""Of the magnitudes of one target, (*image shape): trained network first, randomised second."""

Picture = Callable[[str, int, str, NDArray[np.floating]], None]
"""Called with stage, seed, method and magnitudes (n_targets, *image shape)."""


class Step(NamedTuple):
    """A step of a cascade: its own layers, and all that are random then."""

    number: int
    layers: tuple[str, ...]
    randomised: tuple[str, ...]
    n_parameters: int


class Row(NamedTuple):
    """One number; ``method`` empty: of the network; ``target`` empty: of the whole prediction."""

    order: str
    step: int
    seed: int
    method: str
    target: str
    metric: str
    value: float
    flags: tuple[str, ...]

    @property
    def stage(self) -> str:
        """``ORDER:STEP``, as in `voxplain.records.assessment.SCORES`."""
        return f"{self.order}:{self.step}"


@dataclass(frozen=True)
class CascadeSettings:
    """What is randomised, and how often.

    Parameters
    ----------
    orders
        ``top_down``: from the logits to the input, each step on top of the one before;
        ``bottom_up``: from the input; ``independent``: each group of layers alone.
    n_stages
        Steps after step 0; fewer if the network has fewer layers.
    seeds
        One random network for each.
    statistics
        See `voxplain.assess.randomised.randomised`.
    is_fixed
        Explain the trained network's class over its mask all along. If not, targets are bound
        anew to each random network, as Arun et al. 2021 do; `PREDICTION_FLIP` counts then.

    Raises
    ------
    MethodError
        If a value is not one of these.
    """

    orders: tuple[Order, ...] = ("top_down",)
    n_stages: int = 8
    seeds: tuple[int, ...] = (0,)
    statistics: Statistics = "reset"
    is_fixed: bool = True

    def __post_init__(self) -> None:
        for order in self.orders:
            if order not in get_args(Order):
                raise MethodError(f"an order is {', '.join(get_args(Order))}; got {order!r}")
        if self.n_stages < 1:
            raise MethodError(f"n_stages is at least 1, got {self.n_stages}")
        for name, values in (("orders", self.orders), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise MethodError(f"{name} are at least one, each once; got {values}")


def plan(layers: Sequence[WeightLayer], n_stages: int, order: Order) -> tuple[Step, ...]:
    """Cut the layers into groups of consecutive ones, as equal in number as can be.

    Parameters
    ----------
    layers
        In the order in which they run, see `weight_layers`.
    n_stages, order
        See `CascadeSettings`.

    Returns
    -------
    tuple of Step
        Step 0, the trained network, first. ``n_parameters`` is that of the step's own layers.
    """
    ordered = list(layers) if order == "bottom_up" else list(reversed(layers))
    n = min(n_stages, len(ordered))
    cuts = [len(ordered) * i // n for i in range(n + 1)]
    steps = [Step(0, (), (), 0)]
    for number, (start, stop) in enumerate(pairwise(cuts), 1):
        own = tuple(layer.name for layer in ordered[start:stop])
        before = () if order == "independent" else steps[-1].randomised
        n_parameters = sum(layer.n_parameters for layer in ordered[start:stop])
        steps.append(Step(number, own, before + own, n_parameters))
    return tuple(steps)


def cascade_passes(question: Question, sources: Mapping[str, Source], n_networks: int) -> Passes:
    """Count the passes of a cascade before it is run.

    Parameters
    ----------
    question
        Bound to the trained network.
    sources
        See `run_cascade`.
    n_networks
        Random networks: steps after step 0, over all orders and seeds.

    Returns
    -------
    Passes
        With those on the trained network; the most for adaptive methods. On a random network
        a target whose mask is taken anew may reach more or fewer windows, and a source without
        ``passes`` counts as none.
    """
    one = Passes(question.pipeline.n_passes)
    for source in sources.values():
        if hasattr(source, "passes"):
            needed = source.passes(question)
            one.n_forward += needed.n_forward
            one.n_backward += needed.n_backward
    return Passes((1 + n_networks) * one.n_forward, (1 + n_networks) * one.n_backward)


def run_cascade(
    model: Model,
    image: Volume,
    targets: str | Target | Sequence[str | Target],
    sources: Mapping[str, Source],
    similarities: Mapping[str, Similarity],
    settings: CascadeSettings,
    *,
    regions: LabelMap | None,
    seed: int,
    compute: Compute,
    progress: Progress | None = None,
    picture: Picture | None = None,
) -> tuple[list[Row], dict[Order, tuple[Step, ...]], Passes]:
    """Compare the maps of the trained network with those of ever more random ones.

    Parameters
    ----------
    model, image, targets, regions, seed
        See `voxplain.attribution.explain`. Regions and noise stay those of the trained network.
    sources
        Name → what makes maps.
    similarities
        Name of the metric → function.
    settings
        Orders, steps, seeds.
    compute, progress, picture
        Device; called with passes done and in all; called with every set of maps.

    Returns
    -------
    rows : list of Row
        For each order, seed and step. Step 0 compares the maps with themselves.
    steps : dict
        What each order randomised.
    passes : Passes
        Run in all, but the one to see the layers.

    Notes
    -----
    Passes: `cascade_passes`, and one more to see the layers. Memory: the magnitudes of all
    sources on the trained network, and one set more. Words such as ``layers=auto`` of a class
    activation map are looked up in each random network; name the layer to hold it.

    Differs from Arun et al. 2021: the target is held, and every layer down to the input is
    randomised. From Adebayo et al. 2018: groups of layers, so that the cost does not grow with
    depth; ``n_stages`` as large as the number of layers gives theirs.

    References
    ----------
    Adebayo et al. 2018, arXiv 1810.03292, section 3.
    """
    layers = weight_layers(model, image, compute)
    plans = {order: plan(layers, settings.n_stages, order) for order in settings.orders}
    n_networks = len(settings.seeds) * sum(len(steps) - 1 for steps in plans.values())
    done = Passes()
    with open_pipeline(model, image, compute) as pipeline:
        question = ask(pipeline, image, targets, regions, seed)
        _ = question.prediction_logits, question.regions, question.linear
        total = cascade_passes(question, sources, n_networks).total
        _meter(pipeline, progress, done.total, total)
        trained = {name: _magnitudes(question, source) for name, source in sources.items()}
        _add(done, pipeline.passes)
    same = _changes(question, question)
    for name, maps in trained.items():
        same += _compared(question, name, maps, maps, similarities)
    rows = []
    for order, random_seed, step in _all_steps(plans, settings.seeds):
        found = same
        if step.number:
            drawn = randomised(model, step.randomised, random_seed, statistics=settings.statistics)
            with drawn, open_pipeline(model, image, compute) as pipeline:
                _meter(pipeline, progress, done.total, total)
                other = question.on(pipeline)
                if not settings.is_fixed:
                    wanted = targets_of(targets, model.answers)
                    other.targets = [target.bind(other) for target in wanted]
                _ = other.prediction_logits  # first, so that no window runs twice
                found = _changes(question, other)
                for name, source in sources.items():
                    maps = _magnitudes(other, source)
                    found += _compared(question, name, trained[name], maps, similarities)
                    if picture is not None:
                        picture(f"{order}:{step.number}", random_seed, name, maps)
                _add(done, pipeline.passes)
        elif picture is not None:
            for name, maps in trained.items():
                picture(f"{order}:0", random_seed, name, maps)
        rows += [Row(order, step.number, random_seed, *one) for one in found]
    return rows, plans, done


def area_under_cascade(values: Sequence[float]) -> float:
    """Return the mean of a similarity over a cascade, by the trapezoidal rule over the steps.

    Σ_k (s_k + s_{k+1}) / 2 over K, for the steps k = 0 … K.

    Parameters
    ----------
    values
        One a step, step 0 first, of one order and seed.

    Returns
    -------
    float
        NaN if a value is NaN, or there are fewer than two.
    """
    if len(values) < 2:
        return float("nan")
    inside = sum(values) - (values[0] + values[-1]) / 2
    return float(inside / (len(values) - 1))


_Found = list[tuple[str, str, str, float, tuple[str, ...]]]


def _all_steps(
    plans: Mapping[Order, Sequence[Step]], seeds: Sequence[int]
) -> Iterator[tuple[Order, int, Step]]:
    for order, steps in plans.items():
        for seed in seeds:
            for step in steps:
                yield order, seed, step


def _magnitudes(question: Question, source: Source) -> NDArray[np.floating]:
    """(n_targets, *image shape), in the type of the passes."""
    maps: Magnitudes
    maps = source(question) if callable(source) else compute_maps(question, source)
    is_double = question.pipeline.compute.dtype == torch.float64
    return np.asarray(maps.magnitude(), np.float64 if is_double else np.float32)


def _compared(
    question: Question,
    name: str,
    trained: NDArray[np.floating],
    random: NDArray[np.floating],
    similarities: Mapping[str, Similarity],
) -> _Found:
    found: _Found = []
    for t, target in enumerate(question.targets):
        for metric, function in similarities.items():
            measured = function(trained[t], random[t])
            found.append((name, target.name, metric, measured.value, measured.flags))
    return found


def _changes(trained: Question, random: Question) -> _Found:
    """How far the output of the network moved."""
    found: _Found = []
    for t, target in enumerate(trained.targets):
        before, after = trained.linear[t][0], random.linear[t][0]
        is_absent = target.support is None
        value = abs(after - before) / abs(before) if before and not is_absent else float("nan")
        found.append(
            ("", target.name, TARGET_CHANGE.name, value, (EMPTY_MASK,) if is_absent else ())
        )
    info = trained.info
    logits = [question.prediction_logits.double() for question in (trained, random)]
    labels = [decide(one.numpy(), info) for one in logits]
    if trained.pipeline.is_dense:
        n_both = np.count_nonzero((labels[0] == labels[1]) & (labels[0] > 0))
        n_either = np.count_nonzero(labels[0]) + np.count_nonzero(labels[1])
        value = 1 - 2 * n_both / n_either if n_either else float("nan")
        flags = () if n_either else (EMPTY_MASK,)
        return [*found, ("", "", PREDICTION_CHANGE.name, value, flags)]
    value = float("nan")
    if info.activation != "none":
        is_softmax = info.activation == "softmax"
        odds = [torch.softmax(one, 0) if is_softmax else torch.sigmoid(one) for one in logits]
        moved = (odds[1] - odds[0]).abs()
        value = float(moved.sum() / 2 if is_softmax else moved.mean())
    flip = float(not np.array_equal(labels[0], labels[1]))
    return [
        *found,
        ("", "", PREDICTION_CHANGE.name, value, ()),
        ("", "", PREDICTION_FLIP.name, flip, ()),
    ]


def _add(done: Passes, more: Passes) -> None:
    done.n_forward += more.n_forward
    done.n_backward += more.n_backward


def _meter(pipeline: Pipeline, progress: Progress | None, before: int, total: int) -> None:
    """Report the passes of this pipeline on top of those before."""

    def report(_: int) -> None:
        assert progress is not None
        done = before + pipeline.passes.total
        progress(done, max(total, done))

    if progress is not None:
        pipeline.on_pass = report
