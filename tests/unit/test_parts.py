"""A task in several models: merged prediction, and one explanation of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from voxplain.attribution import ClassTarget, Everywhere, SmoothGrad, estimate, explain
from voxplain.errors import ModelError, TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.predict import predict
from voxplain.models import Model, Parts
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

IMAGE = volume(oblique_grid((5, 7, 11)), n_channels=1, seed=4)
CPU = Compute("cpu")
FEW = SmoothGrad(n=2)


def part(name: str, classes: tuple[str, ...], seed: int) -> Model:
    model = describe(SmallNet(3, 1, len(classes) + 1, seed=seed), n_classes=len(classes) + 1)
    model.info = replace(model.info, name=name, class_names=("background", *classes))
    return model


@pytest.fixture
def parts() -> Parts:
    models = (part("organs", ("liver", "spleen"), 1), part("bones", ("rib",), 2))
    return Parts("total", models, ("background", "spleen", "rib", "liver"))


def test_labels_of_later_models_win(parts: Parts) -> None:
    grid = oblique_grid((1, 1, 4))
    organs = LabelMap(np.array([[[[0, 1, 2, 1]]]]), grid, parts.models[0].info.label_names)
    bones = LabelMap(np.array([[[[0, 0, 1, 1]]]]), grid, parts.models[1].info.label_names)
    merged = parts.merge([organs, bones])
    assert merged.layers.ravel().tolist() == [0, 3, 2, 2]
    assert merged.region_names == ("background", "spleen", "rib", "liver")


def test_each_target_is_explained_by_its_model_over_the_merged_prediction(parts: Parts) -> None:
    wanted = ["class:rib", "class:liver"]
    joint = explain(parts, IMAGE, wanted, FEW, compute=CPU)
    merged = parts.merge([predict(model, IMAGE, compute=CPU) for model in parts.models])
    assert joint.prediction is not None
    np.testing.assert_array_equal(joint.prediction.layers, merged.layers)
    assert joint.table.regions == merged.region_names
    alone = [
        explain(model, IMAGE, name, FEW, regions=merged, compute=CPU)
        for model, name in zip(parts.models, ("class:liver", "class:rib"), strict=True)
    ]
    for one, name in zip(alone, ("liver", "rib"), strict=True):
        np.testing.assert_array_equal(joint[name].values, one[name].values)
        np.testing.assert_array_equal(joint.table.matrix().loc[name], one.table.matrix().loc[name])
    cost = joint.provenance.cost
    n_windows = sum(len(explained_windows(one)) for one in alone)
    assert cost.n_forward == sum(one.provenance.cost.n_forward for one in alone) + n_windows
    assert set(joint.provenance.parameters["parts"]) == {"organs", "bones"}


def explained_windows(explanation: Explanation) -> range:
    return range(explanation.provenance.parameters["n_windows"])


def test_all_asks_for_every_structure_and_the_passes_are_those_told(parts: Parts) -> None:
    told: list[tuple[int, int]] = []
    joint = explain(
        parts, IMAGE, "all", FEW, compute=CPU, progress=lambda *passes: told.append(passes)
    )
    assert {target.name for target in joint.targets} == {"spleen", "rib", "liver"}
    expected = estimate(parts, IMAGE, "all", FEW, compute=CPU)
    cost = joint.provenance.cost
    assert (cost.n_forward, cost.n_backward) == (expected.n_forward, expected.n_backward)
    assert told[-1][0] == told[-1][1] == cost.n_forward + cost.n_backward
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_an_explanation_in_parts_is_saved_and_read_back(parts: Parts, tmp_path) -> None:
    joint = explain(parts, IMAGE, "class:rib", FEW, compute=CPU)
    joint.save(tmp_path)
    again = Explanation.load(tmp_path, IMAGE)
    assert again.provenance == joint.provenance
    assert again.provenance.model_sha256 == parts.sha256


def test_given_regions_need_no_prediction(parts: Parts) -> None:
    half = LabelMap.from_masks({"half": np.arange(11) < 5 + np.zeros((5, 7, 1))}, IMAGE.grid)
    joint = explain(
        parts, IMAGE, ClassTarget("rib", Everywhere()), "gradient", regions=half, compute=CPU
    )
    assert joint.prediction is None
    assert joint.table.regions == ("background", "half")
    expected = estimate(
        parts, IMAGE, ClassTarget("rib", Everywhere()), "gradient", regions=half, compute=CPU
    )
    assert joint.provenance.cost.n_forward == expected.n_forward


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("class:background", "a background of its own"),
        ("class:ribs", "no class 'ribs'; did you mean 'rib'"),
        ("class:rib minus class:liver", "belong to 2 models of total"),
        ("voxel:1,2,3", "targets that name their class"),
    ],
)
def test_targets_that_no_part_answers(parts: Parts, target: str, sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence):
        explain(parts, IMAGE, target, FEW, compute=CPU)


def test_parts_that_do_not_fit_together(parts: Parts) -> None:
    with pytest.raises(ModelError, match="'rib' belongs to 2 models"):
        Parts("x", (parts.models[1], parts.models[1]), ("background", "rib"))
    with pytest.raises(ModelError, match="class 'lung' belongs to 0 models"):
        Parts("x", parts.models, (*parts.class_names, "lung"))
    with pytest.raises(ModelError, match="no class background that excludes"):
        Parts("x", (describe(SmallNet(3, 1, 1), n_classes=1),), ("background",))
