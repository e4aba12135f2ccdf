"""Lesions found, typed and explained one by one, through windows; stopped and taken up again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from voxplain.attribution import (
    ClassTarget,
    GradCamPlusPlus,
    Gradient,
    GradientMax,
    LayerCam,
    Mask,
    SmoothGrad,
    explain,
)
from voxplain.errors import LabelError, ModelError, OutputError, RecordError, TargetError
from voxplain.inference.compute import Compute
from voxplain.lesions.case import LesionSettings, lesion_class, open_case
from voxplain.lesions.explain import explain_lesions
from voxplain.lesions.groups import groups_of
from voxplain.lesions.saliency import SaliencySettings
from voxplain.models import Model, wrap
from voxplain.records import Attribution
from voxplain.records.lesion_tables import LesionResult
from voxplain.records.unfinished import remove_parts
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Failing, Mirrored, Recorder, SmallNet
from voxplain.testing.phantoms import oblique_grid

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((13, 16, 19))
WINDOW = WindowSettings((6, 8, 9), overlap=0.5, blend="gaussian")


class Bright(nn.Module):
    """Logit of a lesion: a smooth function of a blurred first channel, less of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv3d(2, 3, 3, padding=1, bias=False)
        self.head = nn.Conv3d(3, 2, 1)
        with torch.no_grad():
            self.blur.weight.copy_(torch.linspace(0.01, 0.06, 162).reshape(3, 2, 3, 3, 3) ** 1.5)
            self.head.weight.copy_(torch.tensor([[0.0, 0, 0], [3.0, 2, 4]])[..., None, None, None])
            self.head.bias.copy_(torch.tensor([0.0, -12.0]))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.head(torch.nn.functional.softplus(self.blur(windows)))


def model(module: nn.Module | None = None, window: WindowSettings = WINDOW) -> Model:
    return wrap(
        module or Bright(), classes=("background", "lesion"), channels=("flair", "mprage"),
        window=window, activation="softmax", name="bright", check=False,
    )  # fmt: skip


PLACES = ((2, 3, 3), (9, 11, 14), (3, 12, 5))


def image(seed: int = 0) -> tuple[Volume, LabelMap]:
    """Three bright spots; the first two are true lesions, a third true one is not visible."""
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 0.2, (2, *GRID.shape)).astype(np.float32)
    truth = np.zeros(GRID.shape, np.uint8)
    for i, place in enumerate(PLACES):
        spot = tuple(slice(a - 1, a + 2) for a in place)
        data[(slice(None), *spot)] += 6
        if i < 2:
            truth[spot] = 255
    truth[10:12, 2:4, 15:17] = 255
    return Volume(data, GRID, ("flair", "mprage"), "brain"), LabelMap.of(truth, GRID)


METHODS = {
    "average": SmoothGrad(n=2, noise=0.05),
    "max": GradientMax(),
    "cam": GradCamPlusPlus(layers="blur"),
    "layer": LayerCam(layers="blur"),
}


def run(methods=METHODS, **settings: object) -> LesionResult:
    volume, truth = image()
    given = {"truth": truth, "compute": DOUBLE, **settings}
    return explain_lesions(model(), volume, methods, **given)  # type: ignore[arg-type]


def test_types_names_and_numbers() -> None:
    result = run()
    frame = result.instances.set_index("instance")
    assert sorted(frame["type"]) == ["FN", "FP", "TP", "TP"]
    assert (frame["patient"] == "brain").all()
    assert (frame["class"] == "lesion").all()
    volume, truth = image()
    with open_case(model(), volume, truth=truth, compute=DOUBLE) as case:
        whole = case.probability(case.logits)
        for lesion in case.lesions:
            row = frame.loc[lesion.name]
            mask = lesion.on(GRID.shape)
            assert row["n_voxels"] == mask.sum()
            assert row["volume_mm3"] == pytest.approx(mask.sum() * GRID.voxel_mm3)
            assert row["probability_mean"] == pytest.approx(whole[mask].mean())
            assert row["probability_max"] == pytest.approx(whole[mask].max())
            centre = GRID.to_world(np.argwhere(mask)).mean(0)
            np.testing.assert_allclose(row[["x_mm", "y_mm", "z_mm"]].astype(float), centre)
            assert row["touches_border"] == bool(
                any(mask.take(i, a).any() for a in range(3) for i in (0, -1))
            )
            assert (row["probability_max"] > 0.5) == (lesion.type != "FN")
    # labels of the map are the rows
    for i, name in enumerate(result.instances["instance"], 1):
        assert result.lesions.names[i] == name
        assert result.lesions.mask(i).sum() == frame.loc[name, "n_voxels"]


@pytest.mark.parametrize("label", list(METHODS))
def test_each_lesion_as_if_it_were_alone(label: str) -> None:
    result = run({label: METHODS[label]}, saliency=SaliencySettings(crop_mm=1000))
    volume, _ = image()
    for i, row in enumerate(result.instances.to_dict("records"), 1):
        mask = LabelMap.of(result.lesions.mask(i), GRID)
        target = ClassTarget("lesion", Mask(mask))
        alone = explain(model(), volume, target, METHODS[label], compute=DOUBLE)
        wanted = alone.attributions[target.name]
        found = result.maps[row["instance"], label]
        assert found.channels == wanted.channels
        assert (found.kind, found.unit) == (wanted.kind, wanted.unit)
        assert found.score == pytest.approx(wanted.score)
        np.testing.assert_allclose(
            found.values, wanted.values, atol=1e-10 * np.abs(wanted.values).max()
        )
        numbers = result.saliency.query("instance == @row['instance']")
        np.testing.assert_allclose(
            numbers["peak_positive"], wanted.values.max((1, 2, 3)).clip(0), rtol=1e-9
        )
        if np.abs(wanted.values).max() > 0:
            assert numbers["share"].sum() == pytest.approx(1)
            continue
        assert numbers["share"].isna().all()
        (said,) = [f for f in result.findings if f.target == f"{row['instance']} by {label}"]
        assert said.code == "VX107"


def test_mirrored_copies_and_folds_are_explained_together() -> None:
    nets = [Bright(), SmallNet(3, 2, 2, seed=1)]
    both = Mirrored(nets, (0, 2), n_channels=2, n_classes=2, window=WINDOW)
    volume, truth = image()
    result = explain_lesions(
        both, volume, {"max": GradientMax()}, truth=truth, compute=DOUBLE,
        saliency=SaliencySettings(crop_mm=1000),
    )  # fmt: skip
    assert len(result.instances) >= 3
    for i, name in enumerate(result.instances["instance"], 1):
        target = ClassTarget("class_1", Mask(LabelMap.of(result.lesions.mask(i), GRID)))
        alone = explain(both, volume, target, GradientMax(), compute=DOUBLE)
        wanted = alone.attributions[target.name].values
        np.testing.assert_allclose(
            result.maps[name, "max"].values, wanted, atol=1e-10 * np.abs(wanted).max()
        )


def test_maps_lie_where_the_lesion_lies(tmp_path: Path) -> None:
    volume, truth = image()
    # the model works on a grid turned round, and twice as fine along one axis
    turned = wrap(
        Bright(), classes=("background", "lesion"), channels=("flair", "mprage"), window=WINDOW,
        orientation="LPS", spacing=[0.7, 0.55, 2.3], activation="softmax", check=False,
    )  # fmt: skip
    for number, one in enumerate((model(), turned)):
        place = tmp_path / str(number)
        result = explain_lesions(
            one, volume, {"average": Gradient()}, truth=truth, compute=DOUBLE, unfinished=place,
            saliency=SaliencySettings(crop_mm=3.0, maps="full"),
        )  # fmt: skip
        for row in result.instances.to_dict("records"):
            name = row["instance"]
            found = result.maps[name, "average"]
            whole = Attribution.load(place / "full" / f"{name}_average")
            assert whole.grid.matches(GRID)
            # the strongest voxel of each lies at one place in the patient
            tops = [
                m.grid.to_world(np.unravel_index(np.abs(m.values[0]).argmax(), m.grid.shape))
                for m in (found, whole)
            ]
            assert np.linalg.norm(tops[0] - tops[1]) <= 2.4
            if number == 0:
                start = np.rint(GRID.to_index(found.grid.to_world([0, 0, 0]))).astype(int)
                part = tuple(slice(a, a + n) for a, n in zip(start, found.grid.shape, strict=True))
                np.testing.assert_array_equal(found.values, whole.values[(slice(None), *part)])
    with pytest.raises(LabelError, match="give a folder"):
        run({"average": Gradient()}, saliency=SaliencySettings(maps="full"))


def test_drawn_voxels_tell_an_error_and_are_the_same_in_any_group() -> None:
    drawn = {"max": GradientMax(voxels=20)}
    large = LesionSettings(threshold=0.05)
    result = run(drawn, lesions=large)
    frame = result.saliency.merge(result.instances[["instance", "n_voxels"]])
    assert (frame.loc[frame["n_voxels"] <= 20, "share_error"] == 0).all()
    assert (frame.loc[frame["n_voxels"] > 20, "share_error"] > 0).any()
    exact = run({"max": GradientMax()}, lesions=large)
    assert (exact.saliency["share_error"] == 0).all()
    _, truth = image()
    kept = truth.layers[0].copy()
    kept[10:12, 2:4, 15:17] = 0  # without the missed lesion
    fewer = run(drawn, truth=LabelMap.of(kept, GRID), lesions=large)
    both = fewer.saliency.merge(result.saliency, on=["instance", "channel"], suffixes=("", "_all"))
    assert len(both) == 6
    np.testing.assert_allclose(both["peak_positive"], both["peak_positive_all"], rtol=1e-12)


def test_flair_only_network_has_no_share_of_mprage() -> None:
    module = Bright()
    with torch.no_grad():
        module.blur.weight[:, 1] = 0
    volume, truth = image()
    result = explain_lesions(
        model(module), volume, {"g": Gradient(), "m": GradientMax()}, truth=truth, compute=DOUBLE
    )
    shares = result.saliency.set_index(["method", "instance", "channel"])["share"].unstack()
    assert (shares["flair"] == 1).all()
    assert (shares["mprage"] == 0).all()


def test_controls_are_healthy_and_explained() -> None:
    controls = LesionSettings(controls=2, margin_mm=2.0)
    everywhere = LabelMap.of(np.ones(GRID.shape, bool), GRID)
    result = run(
        {"average": Gradient()}, lesions=controls, within=everywhere,
    )  # fmt: skip
    frame = result.instances
    assert list(frame[frame["type"] == "TN"]["instance"]) == ["C1", "C2"]
    assert (frame[frame["type"] == "TN"]["probability_max"] < 0.5).all()
    again = run({"average": Gradient()}, lesions=controls, within=everywhere)
    pd.testing.assert_frame_equal(again.instances, frame)
    other = run({"average": Gradient()}, lesions=controls, within=everywhere, seed=1)
    assert not other.instances.tail(2)["x_mm"].equals(frame.tail(2)["x_mm"])


def test_threshold_decides_which_voxels_are_lesions() -> None:
    volume, truth = image()
    sizes = []
    for threshold in (0.2, None, 0.9):
        settings = LesionSettings(threshold=threshold)
        with open_case(model(), volume, truth=truth, settings=settings, compute=DOUBLE) as case:
            probability = case.probability(case.logits)
            expected = probability >= threshold if threshold else probability > 0.5
            found = np.zeros(GRID.shape, bool)
            for lesion in case.lesions:
                if lesion.type != "FN":
                    found |= lesion.on(GRID.shape)
            np.testing.assert_array_equal(found, expected)
            sizes.append(found.sum())
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_only_the_lesion_s_windows_are_run_and_passes_are_told() -> None:
    volume, truth = image()
    recorder = Recorder(Bright())
    told = []
    result = explain_lesions(
        model(recorder), volume, {"average": SmoothGrad(n=3)}, truth=truth, compute=DOUBLE,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    cost = result.provenance.cost
    assert recorder.n_windows == cost.n_forward
    assert told[-1] == (cost.n_forward + cost.n_backward,) * 2
    n_windows = int(result.provenance.parameters["n_windows"])
    # the volume once, then each lesion's windows for each copy; shared windows at most once each
    each = int(result.instances["n_windows"].sum())
    assert n_windows < cost.n_forward <= n_windows + 3 * each
    assert 2 * each < cost.n_backward <= 3 * each


def test_lesions_of_the_same_windows_share_the_pass_forward() -> None:
    data = np.zeros((2, *GRID.shape), np.float32)
    for place in ((2, 3, 3), (2, 3, 8)):
        data[(slice(None), *place)] = 400
    one = WindowSettings(GRID.shape, overlap=0.0)
    with open_case(model(window=one), Volume(data, GRID), compute=DOUBLE) as case:
        assert len(case.lesions) == 2
        (group,) = groups_of(case.pipeline, case.lesions)
        assert len(group) == 2
    result = explain_lesions(
        model(window=one), Volume(data, GRID), {"average": SmoothGrad(n=3)}, compute=DOUBLE
    )
    assert (result.provenance.cost.n_forward, result.provenance.cost.n_backward) == (4, 6)


def test_groups_hold_every_lesion_once_and_stay_small() -> None:
    rng = np.random.default_rng(3)
    data = np.zeros((2, *GRID.shape), np.float32)
    data[(slice(None), *(rng.random(GRID.shape) < 0.004).nonzero())] = 400
    with open_case(model(), Volume(data, GRID), compute=DOUBLE) as case:
        assert len(case.lesions) > 8
        groups = groups_of(case.pipeline, case.lesions)
        names = sorted(one.name for group in groups for one in group)
        assert names == sorted(one.name for one in case.lesions)
        for group in groups:
            boxes = [case.padded(one.box) for one in group]
            first = case.pipeline.reach(boxes[:1]).n_voxels
            assert case.pipeline.reach(boxes).n_voxels <= 4 * first
            assert len(group) <= 8


def test_batches_do_not_change_the_result() -> None:
    volume, truth = image()
    results = [
        explain_lesions(
            model(), volume, {"average": SmoothGrad(n=2)}, truth=truth,
            compute=Compute("cpu", "float64", batch_size=size),
        )
        for size in (1, 5)
    ]  # fmt: skip
    for name in ("instances", "saliency", "shells"):
        pd.testing.assert_frame_equal(
            getattr(results[0], name), getattr(results[1], name), rtol=1e-9
        )


def test_saved_and_loaded(tmp_path: Path) -> None:
    result = run({"average": Gradient(), "max": GradientMax()})
    files = result.save(tmp_path)
    assert all(file.is_file() for file in files)
    loaded = LesionResult.load(tmp_path, image()[0])
    for name in ("instances", "saliency", "shells"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(result, name))
    assert loaded.maps.keys() == result.maps.keys()
    for key, one in result.maps.items():
        np.testing.assert_array_equal(loaded.maps[key].values, one.values)
    np.testing.assert_array_equal(loaded.lesions.layers, result.lesions.layers)
    assert loaded.provenance == result.provenance
    with pytest.raises(RecordError, match="not the image that was explained"):
        LesionResult.load(tmp_path, image(seed=1)[0])
    (tmp_path / "instances.parquet").write_bytes(b"other")
    with pytest.raises(RecordError, match="was changed since"):
        LesionResult.load(tmp_path)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    volume, truth = image()
    methods = {name: METHODS[name] for name in ("average", "max")}
    whole = run(methods)
    single = Compute("cpu", "float64", batch_size=1)
    place = tmp_path / "unfinished"
    passes = whole.provenance.cost.n_forward
    failing = Failing(Bright(), passes - 4)
    with pytest.raises(ModelError, match="fails on purpose"):
        explain_lesions(
            model(failing), volume, methods, truth=truth, compute=single, unfinished=place
        )
    done = len(list(place.glob("*.part.json")))
    assert 0 < done < len(whole.instances) * len(methods)
    recorder = Recorder(Bright())
    # the weights, and so the plan, are those of the same network
    result = explain_lesions(
        model(recorder), volume, methods, truth=truth, compute=single, unfinished=place
    )
    assert recorder.n_windows < passes
    for name in ("instances", "saliency", "shells"):
        pd.testing.assert_frame_equal(getattr(result, name), getattr(whole, name), rtol=1e-9)
    for key, one in whole.maps.items():
        np.testing.assert_allclose(result.maps[key].values, one.values, atol=1e-12)
    with pytest.raises(OutputError, match="another model, seed"):
        explain_lesions(
            model(), volume, methods, truth=truth, compute=single, unfinished=place, seed=3
        )
    remove_parts(place)
    assert not place.exists()
    (tmp_path / "mine").mkdir()
    remove_parts(tmp_path / "mine")  # nothing of a run
    assert (tmp_path / "mine").is_dir()


def test_parts_of_another_truth_or_plan_are_not_taken(tmp_path: Path) -> None:
    volume, truth = image()
    methods, place = {"g": Gradient()}, tmp_path / "unfinished"
    given = {"compute": DOUBLE, "unfinished": place}
    explain_lesions(model(), volume, methods, truth=truth, **given)
    other = truth.layers[0].copy()
    other[10:12, 2:4, 15:17] = 0
    other[10:12, 2:6, 15:16] = 255  # as many voxels, at the same start
    with pytest.raises(OutputError, match="another lesions, truth_sha256"):
        explain_lesions(model(), volume, methods, truth=LabelMap.of(other, GRID), **given)
    # parts whose plan is gone belong to nobody
    (place / "plan.json").unlink()
    recorder = Recorder(Bright())
    explain_lesions(model(recorder), volume, methods, truth=truth, seed=9, **given)
    assert recorder.n_windows > 40
    # two labels of one file name are two sets of parts
    result = explain_lesions(
        model(), volume, {"a b": Gradient(), "a_b": SmoothGrad(n=1, noise=0.5)}, truth=truth,
        compute=DOUBLE, unfinished=tmp_path / "two",
    )  # fmt: skip
    again = explain_lesions(
        model(), volume, {"a b": Gradient(), "a_b": SmoothGrad(n=1, noise=0.5)}, truth=truth,
        compute=DOUBLE, unfinished=tmp_path / "two",
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.saliency, result.saliency)
    result.save(tmp_path)
    assert set(LesionResult.load(tmp_path).maps) == set(result.maps)


def test_no_lesion_is_a_result() -> None:
    volume = Volume(np.zeros((2, *GRID.shape), np.float32), GRID)
    result = explain_lesions(model(), volume, {"average": Gradient()}, compute=DOUBLE)
    assert len(result.instances) == len(result.saliency) == len(result.shells) == 0
    (finding,) = result.findings
    assert (finding.code, finding.outcome) == ("VX108", "not applicable")
    everywhere = LabelMap.of(np.ones(GRID.shape, bool), GRID)
    result = explain_lesions(
        model(), volume, {"average": Gradient()}, compute=DOUBLE, within=everywhere,
        lesions=LesionSettings(controls=1),
    )  # fmt: skip
    assert list(result.instances["type"]) == ["TN"]
    assert [f.code for f in result.findings] == ["VX108"]


def test_truth_on_another_grid_is_taken_in_space_and_told() -> None:
    volume, truth = image()
    padded = np.pad(truth.layers[0], 2)
    other = LabelMap.of(padded, GRID.crop((-2, -2, -2), padded.shape))
    result = explain_lesions(model(), volume, {"average": Gradient()}, truth=other, compute=DOUBLE)
    assert sorted(result.instances["type"]) == ["FN", "FP", "TP", "TP"]
    (finding,) = result.findings
    assert finding.code == "VX109"
    assert "0 of its 3 lesions kept none" in finding.evidence
    coarse = GRID.respace([5.0, 5.0, 9.0])
    labels = np.zeros(coarse.shape, np.uint8)
    labels[1, 1, 1] = 1
    result = explain_lesions(
        model(), volume, {"average": Gradient()}, truth=LabelMap.of(labels, coarse), compute=DOUBLE
    )
    assert result.findings[0].code == "VX109"
    # the same grid, but a model whose voxels are coarser than the lesions
    small = np.zeros(GRID.shape, np.uint8)
    small[2, 3, 4] = small[9, 12, 3] = 1
    coarse_model = wrap(
        Bright(), classes=("background", "lesion"), channels=("flair", "mprage"), window=WINDOW,
        spacing=[4.0, 4.0, 9.0], activation="softmax", check=False,
    )  # fmt: skip
    result = explain_lesions(
        coarse_model, volume, {"average": Gradient()}, truth=LabelMap.of(small, GRID)
    )
    said = {f.code: f.evidence for f in result.findings}
    assert "of its 2 lesions kept none" in said["VX109"]
    assert "0 of its 2" not in said["VX109"]


def test_no_truth_no_types() -> None:
    result = run({"average": Gradient()}, truth=None)
    assert set(result.instances["type"]) == {"lesion"}
    assert result.instances["overlap"].isna().all()


def test_which_maps_are_kept() -> None:
    none = run({"average": Gradient()}, saliency=SaliencySettings(maps="none"))
    assert not none.maps
    two = run({"average": Gradient()}, saliency=SaliencySettings(n_maps=3))
    kept = two.instances.set_index("instance").loc[[name for name, _ in two.maps], "type"]
    assert sorted(kept) == ["FN", "FP", "TP"]


def test_the_model_comes_back_unchanged() -> None:
    volume, truth = image()
    module = Bright().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    explain_lesions(model(module), volume, METHODS, truth=truth)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(TargetError, match="between 0 and 1"):
        LesionSettings(threshold=1.5)
    with pytest.raises(LabelError, match="rising distances from 0"):
        SaliencySettings(edges_mm=(0.0, 4.0, 2.0))
    with pytest.raises(LabelError, match="at least 0"):
        LesionSettings(controls=-1)
    with pytest.raises(TargetError, match="no class 'tumour'"):
        lesion_class(model(), "tumour")
    many = wrap(
        nn.Conv3d(1, 3, 1), classes=("background", "core", "edema"), channels=("t1",),
        window=(4, 4, 4), activation="softmax", check=False,
    )  # fmt: skip
    with pytest.raises(TargetError, match=r"has 2 classes beside the background.*core, edema"):
        lesion_class(many, None)
    assert lesion_class(many, "edema") == "edema"
    classifier = wrap(
        nn.Linear(4, 2), classes=("no", "yes"), channels=("x",), kind="classification", rank=2,
        activation="softmax", check=False,
    )  # fmt: skip
    with pytest.raises(ModelError, match="classifies whole images"):
        lesion_class(classifier, None)
