"""One evaluator for all methods: what it tells of generators whose answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from torch import nn

from voxplain.attribution.cam import LayerCam
from voxplain.attribution.rise import Rise
from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.classifier_scores import classifier_row, quality
from voxplain.counterfactual.config import EvaluationConfig, PostFilterConfig
from voxplain.counterfactual.evaluation import evaluate
from voxplain.counterfactual.generator import Generator, Repair
from voxplain.counterfactual.score_maps import (
    STAGES,
    expand_methods,
    score_maps,
    stage_layers,
)
from voxplain.counterfactual.slices import COLUMNS, Slices
from voxplain.errors import DataError, MethodError, ModelError, RecordError
from voxplain.records.counterfactual_evaluation import (
    POOLED,
    pooled,
    read_evaluation,
    write_evaluation,
)
from voxplain.study.bootstrap import PatientDraws, interval

SIZE = (12, 16)


def slices(n: int, seed: int, n_patients: int = 3) -> Slices:
    """Make slices at −0.5, of which every second has a square at 0.9."""
    rng = np.random.default_rng(seed)
    clean = np.full((n, 1, *SIZE), -0.5, np.float32)
    truth = np.zeros((n, *SIZE), bool)
    labels = (np.arange(n) % 2 == 0).astype(np.int8)
    for i in np.flatnonzero(labels):
        r, c = rng.integers(1, 7), rng.integers(1, 11)
        truth[i, r : r + 4, c : c + 4] = True
    images = np.where(truth[:, None], 0.9, clean).astype(np.float32)
    rows = [(f"case{i % n_patients}", i % n_patients, "axial", i) for i in range(n)]
    whole = np.ones_like(truth)
    return Slices(
        images, labels, truth, whole, whole, pd.DataFrame(rows, columns=list(COLUMNS)), clean
    )


class Bright(nn.Module):
    """Logit 100·mean(relu(x)) − 3: abnormal where something is brighter than 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.stage = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(2, 1)
        with torch.no_grad():
            self.first.weight[:] = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
            self.first.bias[:] = 0
            self.last.weight[:] = torch.tensor([[100.0, 0.0]])
            self.last.bias[:] = -3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pool(self.stage(self.first(x))))


def bright(name: str = "f") -> Classifier:
    return Classifier(AbnormalLogit(Bright(), 0, False, 1.0, 0.0).eval(), name, name)


class Lowered(Generator):
    """Everything above 0 becomes a given value; None: nothing is changed."""

    multiple = 1

    def __init__(self, value: float | None) -> None:
        super().__init__()
        self.value = value

    def repair(self, images: torch.Tensor) -> Repair:
        if self.value is None:
            return Repair(images)
        return Repair(torch.where(images > 0, torch.full_like(images, self.value), images))


CONFIG = EvaluationConfig(
    methods=("rise:n=30:keep=0.5:fill=-1", "gradient", "layer_cam@stages"), n_boot=30
)


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(
        CONFIG, test=slices(20, 0), validation=slices(8, 1), classifier=bright(),
        judge=bright("g"), generators={"nothing": Lowered(None), "perfect": Lowered(-0.5)}, seed=3,
    )  # fmt: skip


def test_a_perfect_repair_and_one_that_does_nothing(evaluation):
    methods = evaluation.tables["methods"].set_index("method")
    perfect, nothing = methods.loc["perfect"], methods.loc["nothing"]
    for name in ("iou_tuned", "dice_mean_tuned", "iou_fixed", "iou_validation", "iou_tuned_low"):
        assert perfect[name] == 1
    assert nothing["iou_tuned"] == nothing["iou_mean_fixed"] == 0
    assert (perfect["n_slices"], perfect["n_patients"]) == (10, 3)
    assert (perfect["threshold_tuned"], perfect["threshold_fixed"]) == (0, 0.25)
    assert methods.loc["intensity", "iou_tuned"] == 1  # bright blobs are solved by it
    assert methods.loc["intensity-dark", "iou_tuned"] < 0.2  # they are the brightest
    assert np.isnan(methods.loc["intensity", "threshold_fixed"])
    assert set(methods["kind"]) == {"counterfactual", "attribution", "intensity"}
    validity = evaluation.tables["validity"].set_index(["method", "by", "tau"])
    assert (validity.loc["perfect", "validity"] == 1).all()
    assert (validity.loc["nothing", "validity"] == 0).all()
    assert {"classifier", "judge"} == set(validity.index.get_level_values("by"))
    repairs = evaluation.tables["repairs"].set_index("method")
    assert repairs.loc["perfect", "n_exact"] == 10
    assert repairs.loc["perfect", "change_inside"] == pytest.approx(0.7)
    assert repairs.loc["perfect", "fid_normal"] == pytest.approx(0, abs=1e-9)
    shift = np.array([0.9, 0.5]) * 16 / 192  # of the means of relu(x) and relu(−x)
    assert repairs.loc["nothing", "fid_normal"] == pytest.approx(shift @ shift, rel=1e-5)
    assert repairs.loc["nothing", "fid_pairs"] == pytest.approx(0, abs=1e-9)
    assert repairs.loc["perfect", ["change_outside", "change_normal", "marked_normal"]].eq(0).all()
    assert (repairs["features"] == "input of module.last of g").all()


def test_differences_are_those_of_the_generator_best_on_validation(evaluation):
    found = evaluation.tables["differences"]
    assert set(found["method"]) == {"perfect"}
    row = found[(found["rival"] == "nothing") & (found["metric"] == "iou_tuned")].iloc[0]
    assert row[["difference", "low", "high"]].tolist() == [1, 1, 1]


def test_curve_and_slices_agree_with_the_methods(evaluation):
    methods = evaluation.tables["methods"].set_index("method")
    curves, rows = evaluation.tables["curves"], evaluation.tables["slices"]
    for name, row in methods.iterrows():
        at = curves[
            (curves["method"] == name) & np.isclose(curves["threshold"], row.threshold_tuned)
        ]
        values = at.set_index("part")["iou"]
        assert values["test"] == pytest.approx(row.iou_tuned)
        assert values["validation"] == pytest.approx(row.iou_validation)
        own = rows[(rows["method"] == name) & (rows["label"] == 1)]
        assert own["iou"].mean() == pytest.approx(row.iou_mean_tuned)
        assert len(own) == 10
    own = rows[rows["method"] == "perfect"]
    assert len(own) == 20
    assert (own["probability_after"] < 0.5).all()
    assert own.loc[own["label"] == 1, "change"].to_numpy() == pytest.approx(0.7 * 16 / 192)


def test_stages_and_fused_stand_in_the_table(evaluation):
    assert [*stage_layers(bright(), SIZE)] == ["12x16", "6x8"]
    names = set(evaluation.tables["methods"]["method"])
    assert {"layer_cam@12x16", "layer_cam@6x8", "layer_cam@fused", "rise", "gradient"} <= names
    methods = evaluation.tables["methods"].set_index("method")
    assert methods.loc["layer_cam@12x16", "iou_tuned"] == 1  # ReLU(x) times a constant
    assert methods.loc["layer_cam@6x8", "iou_tuned"] < 1
    assert methods.loc["rise", "n_forward"] == 31  # masks, and the clean picture
    for name, text in methods.loc[methods["kind"] == "attribution", "asked_as"].items():
        assert expand_methods([text], bright(), SIZE)  # can be asked for again
        assert text.partition(":")[0] == name.partition("@")[0]
    assert methods.loc[["perfect", "intensity"], "asked_as"].eq("").all()


def test_labels_hold_what_methods_of_one_name_do_not_share():
    texts = [
        "rise:n=1000:keep=0.1:fill=-1", "rise:n=1000:fill=-1:keep=0.5", "rise:n=1000:fill=-1",
        "gradient", "occlusion:size=4", "occlusion:size=8:fill=noise:0.5", STAGES,
    ]  # fmt: skip
    found = expand_methods(texts, bright(), SIZE)
    assert [*found][:6] == [
        "rise:keep=0.1", "rise:keep=0.5", "rise", "gradient", "occlusion:size=4",
        "occlusion:size=8:fill=noise:0.5",
    ]  # fmt: skip
    assert [found[name].keep for name in ("rise:keep=0.1", "rise:keep=0.5")] == [0.1, 0.5]
    with pytest.raises(MethodError, match="given twice, with other words"):
        expand_methods(["rise:n=9:keep=0.1", "rise:keep=0.1:n=9"], bright(), SIZE)


def test_dark_lesions_are_found_by_dark_intensity():
    def dark(s: Slices) -> Slices:
        inside = s.inside.copy()
        inside[:, :, 0] = False  # padding is the darkest
        images = np.where(inside[:, None], -s.images, -1).astype(np.float32)
        return replace(s, images=images, inside=inside, truth=s.truth & inside, clean=None)

    found = evaluate(
        EvaluationConfig(n_boot=5), test=dark(slices(8, 0)), validation=dark(slices(4, 1)),
        classifier=bright(), judge=None, generators={"g": Lowered(None)},
    )  # fmt: skip
    values = found.tables["methods"].set_index("method")["iou_tuned"]
    assert values["intensity-dark"] == 1
    assert values["intensity"] < 0.2


def test_classifiers_are_measured_on_all_test_slices():
    test = slices(40, 0, n_patients=10)
    rng = np.random.default_rng(5)
    noisy = test.images + rng.normal(0, 0.3, (40, 1, 1, 1))
    noisy = noisy + rng.normal(0, 0.3, test.images.shape)
    test = replace(test, images=noisy.clip(-1, 1).astype(np.float32))
    one = bright()
    with torch.no_grad():
        one.network.module.last.bias[:] = -8
    found = evaluate(
        EvaluationConfig(n_boot=30, max_slices=4), test=test, validation=slices(4, 1),
        classifier=one, judge=bright("g"), generators={"g": Lowered(None)}, seed=2,
    )  # fmt: skip
    table = found.tables["classifiers"].set_index("by")
    assert [*table.index] == ["classifier", "judge"]
    row = table.loc["classifier"]
    assert (row.n_slices, row.n_abnormal, row.n_patients) == (40, 20, 10)
    p = one.probability(torch.from_numpy(test.images)).detach().numpy()
    matrix = confusion_matrix(test.labels, p > 0.5, normalize="true")
    assert 0.6 < row.auroc < 1
    assert row.auroc == pytest.approx(roc_auc_score(test.labels, p), abs=1e-12)
    assert [row.specificity, row.sensitivity] == pytest.approx([*np.diag(matrix)])
    assert row.accuracy == pytest.approx(accuracy_score(test.labels, p > 0.5))
    assert row.auroc_low <= row.auroc <= row.auroc_high


def test_intervals_of_auroc_are_those_of_drawn_slices():
    rng = np.random.default_rng(0)
    labels, patients = rng.integers(0, 2, 60), rng.integers(0, 9, 60)
    logits = np.round(labels + rng.normal(0, 1, 60), 1)  # with ties
    draws = PatientDraws([str(p) for p in patients], 50, 4)
    found = quality(logits, labels, draws)
    each = []
    for counts in draws.counts:
        rows = np.repeat(np.arange(60), counts[draws.owner])
        both = len(set(labels[rows])) == 2
        each.append(roc_auc_score(labels[rows], logits[rows]) if both else np.nan)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    expected = interval(np.array(each), 9, 0.95)
    assert (found["auroc_low"], found["auroc_high"]) == pytest.approx(expected, abs=1e-12)
    alone = quality(logits[labels == 1], labels[labels == 1],
                    PatientDraws([str(p) for p in patients[labels == 1]], 50, 4))  # fmt: skip
    assert np.isnan([alone["auroc"], alone["specificity"], alone["specificity_low"]]).all()
    assert alone["sensitivity"] == alone["accuracy"]
    assert alone["note"] == "the test part has no normal slice"


def test_few_patients_have_no_interval():
    labels = np.repeat([0, 1], [6, 2])
    logits = np.where(labels, 3.0, -3.0)
    found = quality(logits, labels, PatientDraws([str(i) for i in range(8)], 50, 0))
    assert (found["auroc"], found["sensitivity"], found["specificity"]) == (1, 1, 1)
    assert np.isnan([found[f"{name}_low"] for name in ("auroc", "sensitivity")]).all()
    assert found["specificity_low"] == found["accuracy_low"] == 1
    assert found["note"].startswith("2 patients with abnormal slices: too few for an interval")


def test_a_classifier_that_gives_no_number_is_refused():
    broken = bright()
    with torch.no_grad():
        broken.network.module.last.bias[:] = np.nan
    with pytest.raises(ModelError, match="4 of 4 test slices have a logit that is not a number"):
        classifier_row("classifier", broken, slices(4, 0), 5, 0, 2)


def test_saved_and_read_back(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "e")
    found = read_evaluation(tmp_path / "e")
    for name, table in evaluation.tables.items():
        pd.testing.assert_frame_equal(
            found.tables[name], table.reset_index(drop=True), check_dtype=False, rtol=1e-12
        )
    assert {*found.pictures} == {*evaluation.pictures}
    for name, values in evaluation.pictures.items():
        assert np.array_equal(found.pictures[name], values)
        assert len(values) == 8
    assert found.provenance["seed"] == 3
    assert found.provenance["hashes"]["classifier"] == "f"
    (tmp_path / "e" / "methods.csv").write_text("x")
    with pytest.raises(RecordError, match="was changed"):
        read_evaluation(tmp_path / "e")


def test_several_runs_are_pooled(evaluation):
    methods = evaluation.tables["methods"].copy()
    methods.loc[methods["method"] == "perfect", "iou_tuned"] = 0.5
    other = replace(evaluation, tables={**evaluation.tables, "methods": methods})
    table = pooled({"0": evaluation, "1": other})
    assert tuple(table.columns) == POOLED
    row = table[(table["method"] == "perfect") & (table["metric"] == "iou_tuned")].iloc[0]
    assert (row["n_runs"], row["mean"], row["low"], row["high"]) == (2, 0.75, 0.5, 1)
    assert row["sd"] == pytest.approx(np.std([0.5, 1], ddof=1))
    assert row["runs"] == "0=1; 1=0.5"
    row = table[(table["method"] == "intensity") & (table["metric"] == "iou_fixed")].iloc[0]
    assert row["n_runs"] == 0
    assert np.isnan(row["mean"])
    one = pooled({"0": evaluation})
    assert one["sd"].isna().all()
    assert "validity judge 0.8" in set(one["metric"])


def test_neither_batch_nor_the_other_slices_matter():
    test, one = slices(4, 0), bright()
    methods = {"rise": Rise(n=20), "layer_cam": LayerCam()}
    maps = {b: dict(score_maps(one, test, methods, seed=1, batch=b)) for b in (1, 7)}
    alone = dict(score_maps(one, test.at([2]), methods, seed=1))
    for name in methods:
        assert maps[1][name].values == pytest.approx(maps[7][name].values, abs=1e-5)
        assert alone[name].values[0] == pytest.approx(maps[7][name].values[2], abs=1e-5)
        assert maps[1][name].values.min() >= 0


def test_rise_explains_the_probability():
    test, one = slices(1, 0), bright()
    (_, found), *_ = score_maps(one, test, {"rise": Rise(n=400, keep=0.5)}, seed=1)
    (p,) = one.probability(torch.from_numpy(test.images)).detach()
    assert 0.1 < found.values.max() <= 1.3 * float(p)  # S(v) = E[p | v shown] ≤ 1, of 400 masks


def test_score_cam_removes_to_air():
    # what is removed turns −1: the classifier must never see the grey 0 of x·M
    seen: list[torch.Tensor] = []

    class Looked(Bright):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach())
            return super().forward(x)

    one = Classifier(AbnormalLogit(Looked(), 0, False, 1.0, 0.0).eval(), "f", "f")
    test = slices(1, 0)
    methods = expand_methods(["score_cam:layers=module.stage:weights=probability"], one, SIZE)
    dict(score_maps(one, test, methods))
    masked = [x for x in seen if not torch.equal(x, torch.from_numpy(test.images))]
    lowest = min(float(x.min()) for x in masked if x.shape[2:] == SIZE and x.abs().max() <= 1)
    assert lowest == pytest.approx(-1, abs=1e-6)


def test_without_truth_validity_is_still_told():
    test, validation = slices(8, 0), slices(4, 1)
    none = [replace(s, truth=np.zeros_like(s.truth), clean=None) for s in (test, validation)]
    found = evaluate(
        EvaluationConfig(n_boot=5), test=none[0], validation=none[1], classifier=bright(),
        judge=None, generators={"g": Lowered(-0.5)},
    )  # fmt: skip
    row = found.tables["methods"].set_index("method").loc["g"]
    assert np.isnan(row[["iou_tuned", "iou_fixed", "threshold_tuned"]].astype(float)).all()
    assert "no lesion is known in the test slices" in row["note"]
    assert (found.tables["validity"]["validity"] == 1).all()
    assert len(found.tables["differences"]) == 0
    assert np.array_equal(found.pictures["mask/g"], slices(8, 0).truth[::2])  # at 0.25


def test_post_filter_is_the_same_for_every_method():
    config = EvaluationConfig(n_boot=5, post_filter=PostFilterConfig(min_pixels=17))
    found = evaluate(
        config, test=slices(8, 0), validation=slices(4, 1), classifier=bright(), judge=None,
        generators={"g": Lowered(-0.5)},
    )  # fmt: skip
    methods = found.tables["methods"].set_index("method")
    assert (methods["iou_tuned"] < 0.2).all()  # squares of 16 pixels are thrown away
    curve = found.tables["curves"].query("method == 'g' and part == 'test'")
    assert len(curve) == 21


def test_networks_come_back_as_they_were():
    generator, one = Lowered(-0.5), bright()
    generator.train()
    evaluate(
        EvaluationConfig(n_boot=2), test=slices(4, 0), validation=slices(4, 1), classifier=one,
        judge=None, generators={"g": generator},
    )  # fmt: skip
    assert generator.training
    assert not one.network.training


def test_faults_are_named():
    test, one = slices(8, 0), bright()
    how = {"validation": slices(4, 1), "classifier": one, "judge": None}
    normal = test.at(np.flatnonzero(test.labels == 0))
    with pytest.raises(DataError, match="none of its 4 slices"):
        evaluate(EvaluationConfig(), test=normal, generators={}, **how)
    with pytest.raises(MethodError, match="of one name: gradient"):
        evaluate(
            EvaluationConfig(methods=("gradient",)), test=test,
            generators={"gradient": Lowered(None)}, **how,
        )  # fmt: skip
    with pytest.raises(MethodError, match="is given twice"):
        expand_methods(["layer_cam@stages"] * 2, one, SIZE)
