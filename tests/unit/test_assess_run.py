"""The whole assessment: every group's rows, the same after a stop, models untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from voxplain.assess.asked import Asked
from voxplain.assess.metrics import GROUPS_OF, METRICS
from voxplain.assess.price import PICTURES, prices_of
from voxplain.assess.rows import ListedCase
from voxplain.assess.run import assess
from voxplain.assess.settings import GROUPS, AssessSettings, Group
from voxplain.assess.subject import Subject
from voxplain.attribution import Gradient, IntegratedGradients, Shapley
from voxplain.attribution.methods import PRESETS
from voxplain.attribution.words import methods_of
from voxplain.errors import DataError, MethodError, OutputError, VoxplainError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes
from voxplain.models import wrap
from voxplain.models.model import Model
from voxplain.records.assessment import SCORES, Assessment
from voxplain.space.labelmap import LabelMap
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64", batch_size=2)
GRID = oblique_grid((8, 9, 10))
KEY = [column for column in SCORES if column != "value"]
TIMES = ("seconds", "peak_memory_mb")
SETTINGS = AssessSettings(
    groups=GROUPS, n_runs=4, n_steps=2, n_copies=1, n_stages=2, n_pairs=3,
    baselines=("random", "edges", "prediction"), removals=("voxels", "regions"), n_pictures=1,
)  # fmt: skip
METHODS = {"ig": IntegratedGradients(n=2), "shapley": Shapley()}


LIGHT = replace(
    SETTINGS, groups=("faithfulness", "complexity", "utility", "randomisation", "agreement"),
    removals=("voxels",), baselines=("random",),
)  # fmt: skip


def model_of(seed: int) -> Model:
    return describe(SmallNet(3, 1, 3, seed=seed), window=(6, 7, 8), name=f"net_{seed}")


def listed(n: int) -> list[ListedCase]:
    def read(i: int) -> Subject:
        image = replace(volume(GRID, 1, seed=i), name=f"case_{i}")
        rng = np.random.default_rng(i)
        truth = rng.integers(0, 3, (1, *GRID.shape)).astype(np.uint8)
        labels = LabelMap(truth, GRID, {0: "background", 1: "class_1", 2: "class_2"})
        return Subject(image, f"patient_{i}", labels)

    return [ListedCase(f"case_{i}", f"patient_{i}", lambda i=i: read(i)) for i in range(n)]


def asked(**changes: Any) -> Asked:
    found = {
        "models": {"a": model_of(0), "b": model_of(1)}, "cases": listed(2), "methods": METHODS,
        "targets": ["class:class_1", "class:class_2"], "settings": SETTINGS, "compute": DOUBLE,
    }  # fmt: skip
    return Asked(**{**found, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    return assess(asked(), tmp_path_factory.mktemp("whole") / "unfinished")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    return assess(small(), tmp_path_factory.mktemp("light") / "unfinished")


def small(**changes: Any) -> Asked:
    return asked(**{"settings": LIGHT, "methods": {"shapley": Shapley()}, **changes})


def values(result: Assessment) -> pd.DataFrame:
    frame = result.scores[~result.scores["metric"].isin(TIMES)]
    return frame.sort_values(KEY, ignore_index=True)


def test_every_row_has_a_meaning_and_lies_in_its_range(whole: Assessment) -> None:
    assert set(whole.scores["metric"]) == {metric.name for metric in whole.metrics}
    for metric in whole.metrics:
        found = whole.scores.loc[whole.scores["metric"] == metric.name, "value"].dropna()
        assert found.between(metric.low - 1e-9, metric.high + 1e-9).all(), metric.name


def test_every_metric_is_there_but_those_of_presets_and_classifiers(whole: Assessment) -> None:
    missing = set(METRICS) - set(whole.scores["metric"])
    assert missing == {
        "energy_in_body",  # noise has no air around it
        "faithfulness_correlation_agg2exp", "faithfulness_correlation_supervoxels",
        "infidelity_supervoxels", "infidelity_raw_supervoxels", "legacy_auprc", "legacy_ssim",
        "legacy_ssim_area", "model_probability", "prediction_flip",
    }  # fmt: skip


def test_methods_and_trivial_maps_stand_side_by_side(whole: Assessment) -> None:
    rows = whole.scores[whole.scores["stage"] == "original"]
    for metric in ("faithfulness_correlation", "average_precision", "deletion_area", "entropy"):
        found = set(rows.loc[rows["metric"] == metric, "method"])
        assert found == {*METHODS, "baseline:random", "baseline:edges", "baseline:prediction"}


def test_stages(whole: Assessment) -> None:
    similar = whole.scores[whole.scores["metric"] == "pearson"]
    counts = similar.groupby("stage").size()
    maps = 2 * 2  # cases, targets
    assert counts["top_down:1"] == counts["top_down:2"] == 2 * maps * (len(METHODS) + 1)
    assert counts["repeatability"] == maps * len(METHODS)
    assert counts["random pairs"] == 2 * 2 * len(METHODS)
    assert (similar.loc[similar["stage"] == "top_down:0", "value"] > 1 - 1e-9).all()
    edges = similar[similar["method"] == "baseline:edges"]
    assert (edges["value"] > 1 - 1e-9).all()
    assert set(whole.stages["number"]) == {0, 1, 2}


def test_pictures_have_their_pixels(whole: Assessment) -> None:
    assert set(whole.pictures["case"]) == {"case_0"}
    assert set(whole.pictures["file"]) == set(whole.planes)
    stages = set(whole.pictures["stage"])
    assert stages == {"image", "truth", "prediction", "original", "top_down:1", "top_down:2"}
    for file, pixels in whole.planes.items():
        assert pixels.dtype == np.uint8, file
        assert pixels.max() > 0


def test_verdicts_are_told_for_methods_alone(whole: Assessment) -> None:
    subjects = {one.target for one in whole.findings}
    assert subjects == {f"{model} · {method}" for model in "ab" for method in METHODS}
    few = [one for one in whole.findings if one.code == "VX207"]
    assert {one.outcome for one in few} == {"issue"}


def test_saved_and_loaded(whole: Assessment, tmp_path: Path) -> None:
    whole.save(tmp_path)
    again = Assessment.load(tmp_path)
    pd.testing.assert_frame_equal(again.scores, whole.scores)
    pd.testing.assert_frame_equal(again.summary, whole.summary)
    assert again.findings == whole.findings
    assert again.metrics == whole.metrics
    assert again.provenance == whole.provenance
    assert all(np.array_equal(again.planes[k], v) for k, v in whole.planes.items())


class StopError(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("after", [2, 60])
def test_a_stopped_run_goes_on(light: Assessment, tmp_path: Path, after: int) -> None:
    calls = 0

    def stop(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        assert done <= total
        if calls == after:
            raise StopError

    place = tmp_path / "unfinished"
    wanted = small()
    before = {label: model.module.state_dict() for label, model in wanted.models.items()}
    with pytest.raises(StopError):
        assess(wanted, place, stop)
    for label, model in wanted.models.items():
        for name, tensor in model.module.state_dict().items():
            assert torch.equal(tensor, before[label][name])
    again = assess(small(), place)
    pd.testing.assert_frame_equal(values(again), values(light))
    assert not (again.scores.duplicated(KEY)).any()


def test_another_plan_is_refused(tmp_path: Path) -> None:
    few = replace(SETTINGS, groups=("complexity",))
    assess(asked(settings=few), tmp_path)
    with pytest.raises(OutputError, match="another seed"):
        assess(asked(settings=few, seed=1), tmp_path)


def test_batch_size_and_order_of_cases_do_not_matter(light: Assessment, tmp_path: Path) -> None:
    other = small(compute=replace(DOUBLE, batch_size=1), cases=listed(2)[::-1])
    found = values(assess(other, tmp_path))
    wanted = values(light)
    ranks = ("spearman", "spearman_area", "top_overlap", "top_overlap_area", "fill_agreement")
    is_rank = wanted["metric"].isin(ranks) | wanted["metric"].str.startswith("stability")
    pd.testing.assert_frame_equal(found[~is_rank], wanted[~is_rank], rtol=1e-6, atol=1e-8)
    pd.testing.assert_frame_equal(found[is_rank], wanted[is_rank], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("groups", "n_smooth", "n_models"),
    [
        (("faithfulness", "stability", "fills", "complexity"), 1, 1),
        (("randomisation", "complexity"), 1, 1),
        (("randomisation", "agreement"), 2, 2),
        (("agreement",), 2, 2),
        (("curves",), 1, 1),
    ],
)
def test_passes_are_told_before(
    tmp_path: Path, groups: tuple[Group, ...], n_smooth: int, n_models: int
) -> None:
    settings = replace(
        SETTINGS, groups=groups, n_smooth=n_smooth, n_randomisations=2,
        orders=("top_down", "independent"), n_stages=9,
    )  # fmt: skip
    models = {label: model_of(i) for i, label in enumerate("ab"[:n_models])}
    wanted = asked(settings=settings, models=models, cases=listed(1), methods={"ig": METHODS["ig"]})
    told = [price.passes(1, settings.n_pictures) for price in prices_of(wanted).values()]
    cost = assess(wanted, tmp_path).provenance.cost
    assert cost.n_backward == sum(one.n_backward for one in told)
    n_forward = sum(one.n_forward for one in told)
    if groups == ("curves",):  # the most that they can take
        assert 0.5 * n_forward < cost.n_forward <= n_forward
    else:
        assert cost.n_forward == n_forward


def test_only_cases_with_pictures_pay_for_them_and_time_is_per_pass() -> None:
    few = replace(SETTINGS, groups=("randomisation",))
    wanted = asked(settings=few, models={"a": model_of(0)}, methods={"ig": METHODS["ig"]})
    (price,) = prices_of(wanted).values()
    cut = price.parts[PICTURES].n_forward
    assert cut > 0
    rest = price.passes(1, 0).n_forward
    assert [price.passes(3, n).n_forward - 3 * rest for n in (0, 1, 2, 9)] == [
        0, cut, 2 * cut, 3 * cut,
    ]  # fmt: skip
    assert price.forward_seconds > 0
    assert price.seconds(Passes(4, 3)) == pytest.approx(10 * price.forward_seconds)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_gives_the_metrics_that_are_told_of_it(tmp_path: Path, group: Group) -> None:
    settings = replace(SETTINGS, groups=(group,), n_stages=1)
    methods = {"ig": METHODS["ig"]}
    found = set(assess(asked(settings=settings, methods=methods), tmp_path).scores["metric"])
    always = {name for name, groups in GROUPS_OF.items() if not groups}
    wanted = {name for name, groups in GROUPS_OF.items() if group in groups} | always
    needs_more = {
        "energy_in_body", "faithfulness_correlation_agg2exp",
        "faithfulness_correlation_supervoxels", "infidelity_supervoxels",
        "infidelity_raw_supervoxels", "legacy_auprc", "legacy_ssim", "legacy_ssim_area",
        "model_probability", "prediction_flip",
    }  # fmt: skip
    assert found == wanted - needs_more


def test_parts_are_counted_and_those_taken_up_come_first(tmp_path: Path) -> None:
    few = {"settings": replace(SETTINGS, groups=("complexity",)), "models": {"a": model_of(0)}}
    told: list[tuple[int, int]] = []
    assess(asked(**few), tmp_path, finished=lambda *numbers: told.append(numbers))
    assert told == [(0, 2), (1, 2), (2, 2)]
    told.clear()
    assess(asked(**few), tmp_path, finished=lambda *numbers: told.append(numbers))
    assert told == [(2, 2)]


def test_the_method_at_fault_is_named_with_what_to_write(tmp_path: Path) -> None:
    methods = {
        "agg2exp-gradient": PRESETS["agg2exp-gradient"],
        "cubes": Shapley("cubes:64", exact=2, samples=8),
    }
    wanted = asked(methods=methods, settings=replace(SETTINGS, groups=("complexity",)))
    for price in (lambda: prices_of(wanted), lambda: assess(wanted, tmp_path)):
        with pytest.raises(MethodError, match="method cubes: a game has") as fault:
            price()
        text = str(fault.value)
        assert text.endswith("leave it out: --methods agg2exp-gradient")
        line = text.partition("write --methods ")[2].partition(", or")[0]
        changed = methods_of(line.split(","), "--methods")
        assert changed["agg2exp-gradient"] == methods["agg2exp-gradient"]
        other = changed["shapley"]
        assert isinstance(other, Shapley)
        assert other == replace(methods["cubes"], samples=other.samples)
        prices_of(replace(wanted, methods=changed))


CLASSES = ("normal", "ill", "odd")


def classifier(seed: int) -> Model:
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 3),
    )  # fmt: skip
    return wrap(
        module, classes=CLASSES, channels=["x"], rank=2, kind="classification",
        name=f"classifier_{seed}", check=False,
    )  # fmt: skip


def pictures(n: int) -> Sequence[ListedCase]:
    grid = oblique_grid((12, 10), (0.7, 1.1))

    def read(i: int) -> Subject:
        image = replace(volume(grid, 1, seed=i), name=f"case_{i}")
        box = np.zeros(grid.shape, bool)
        box[2:6, 3 : 7 + i % 2] = True
        return Subject(image, f"patient_{i}", None, {"ill": box})

    return [ListedCase(f"case_{i}", f"patient_{i}", lambda i=i: read(i)) for i in range(n)]


@pytest.mark.parametrize("preset", ["default", "arun2021"])
def test_classifiers_with_boxes(tmp_path: Path, preset: Any) -> None:
    groups = ("utility", "randomisation", "agreement", "complexity")
    settings = AssessSettings(groups=groups, preset=preset, n_stages=2, n_pictures=1)
    target = "predicted" if preset == "arun2021" else "class:ill"
    result = assess(
        asked(
            models={f"m{i}": classifier(i) for i in range(3)}, cases=pictures(3),
            methods={"gradient": Gradient()}, targets=[target], settings=settings,
        ),
        tmp_path,
    )  # fmt: skip
    scores = result.scores
    found = scores[(scores["metric"] == "prevalence") & (scores["method"] == "gradient")]
    assert sorted(found["value"].round(6).unique()) == [round(16 / 120, 6), round(20 / 120, 6)]
    assert ("legacy_auprc" in set(scores["metric"])) == (preset == "arun2021")
    assert "baseline:prediction" not in set(scores["method"])
    agreement = scores[scores["metric"] == "prediction_agreement"]
    assert set(agreement["value"]) <= {0.0, 1.0}
    assert len(agreement) == 3 * 3
    flips = scores[scores["metric"] == "prediction_flip"]
    assert (flips.loc[flips["stage"] == "top_down:0", "value"] == 0).all()


@pytest.mark.parametrize(
    ("changes", "fault", "words"),
    [
        ({"methods": {}}, MethodError, "no method"),
        ({"methods": {"baseline:x": Gradient()}}, MethodError, "are taken"),
        ({"cases": []}, DataError, "no case"),
        ({"cases": [*listed(1), *listed(1)]}, DataError, "cases of one name: case_0"),
    ],
)
def test_faults(changes: dict[str, Any], fault: type[VoxplainError], words: str) -> None:
    with pytest.raises(fault, match=words):
        asked(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": ("faithfullness",)}, "--metrics: no group 'faithfullness'; did you mean"),
        ({"groups": ("xyzzy",)}, "no group 'xyzzy'. Known: faith"),
        ({"groups": ("average_precision",)}, "a metric of the group utility; write --metrics"),
        ({"groups": ("ssim",)}, "the group randomisation and the group agreement"),
        ({"groups": ("map_peak",)}, "always measured"),
        ({"baselines": ("foo",)}, "--baseline: no trivial map 'foo'. Known: random"),
        ({"orders": ("sideways",)}, "top_down"),
        ({"preset": "other"}, "arun2021"),
        ({"n_runs": 2}, "n_runs is at least 3"),
        ({"radius": 0.0}, "positive"),
    ],
)
def test_settings_faults(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MethodError, match=words):
        AssessSettings(**changes)


def test_a_changed_case_is_measured_again(tmp_path: Path) -> None:
    few = {"settings": replace(SETTINGS, groups=("complexity",), n_pictures=0)}
    cases = [replace(one, stamp="1") for one in listed(2)]
    seen: list[str] = []

    def watched(one: ListedCase) -> ListedCase:
        return replace(one, read=lambda: (seen.append(one.name), one.read())[1])

    place = tmp_path / "unfinished"
    assess(asked(cases=[watched(one) for one in cases], **few), place)
    assert seen == ["case_0", "case_1"]
    cases[1] = replace(cases[1], stamp="2")
    assess(asked(cases=[watched(one) for one in cases], **few), place)
    assert seen == ["case_0", "case_1", "case_1"]
