from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voxplain.attribution import (
    ClassTarget,
    Difference,
    Everywhere,
    Instance,
    Mask,
    Predicted,
    Voxel,
)
from voxplain.attribution.parse import target_of, targets_of
from voxplain.errors import TargetError, VoxplainError
from voxplain.models import ModelInfo
from voxplain.space.nifti import write_nifti
from voxplain.testing.phantoms import labels, oblique_grid

INFO = ModelInfo("net", "segmentation", 3, ("ct",), ("background", "liver", "spleen"), "softmax",
                 None, "0" * 64)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "target", "name"),
    [
        ("class:liver", ClassTarget("liver"), "liver"),
        (" class:liver ", ClassTarget("liver"), "liver"),
        ("voxel:3,4,5", ClassTarget(None, Voxel((3, 4, 5))), "voxel:3,4,5"),
        ("class:liver@voxel:3,4", ClassTarget("liver", Voxel((3, 4))), "liver@voxel:3,4"),
        ("class:liver@instance:2", ClassTarget("liver", Instance(2)), "liver@instance:2"),
        ("class:liver@everywhere", ClassTarget("liver", Everywhere()), "liver@everywhere"),
        ("everywhere", ClassTarget(None, Everywhere()), "everywhere"),
        (
            "class:liver@predicted_anew",
            ClassTarget("liver", Predicted(hold=False)),
            "liver@predicted anew",
        ),
        (
            "class:liver minus class:spleen@everywhere",
            Difference(ClassTarget("liver"), ClassTarget("spleen", Everywhere())),
            "liver minus spleen@everywhere",
        ),
    ],
)
def test_texts(text: str, target: ClassTarget | Difference, name: str) -> None:
    assert target_of(text) == target
    assert target_of(text).name == name


@pytest.mark.parametrize("text", ["spleen", " Spleen "])
def test_a_bare_name_of_a_class_is_told_how_to_be_written(text: str) -> None:
    with pytest.raises(TargetError, match="did you mean class:spleen"):
        targets_of([text], INFO.class_names)
    with pytest.raises(TargetError, match="write all, class:NAME"):
        targets_of([text], ["liver"])
    # a word of the language stays one where a class has its name
    assert targets_of("everywhere", ["everywhere"]) == [ClassTarget(None, Everywhere())]


def test_all_and_several() -> None:
    names = [target.name for target in targets_of("all", INFO.class_names)]
    assert names == ["background", "liver", "spleen"]
    mixed = targets_of(["class:liver", ClassTarget("spleen"), "all"], INFO.class_names)
    assert [t.name for t in mixed] == ["liver", "spleen", *names]
    assert [t.name for t in targets_of(ClassTarget("liver"), INFO.class_names)] == ["liver"]


def test_score_and_reduction_are_given_to_every_text() -> None:
    found = targets_of(["all", "class:liver@everywhere minus class:spleen"], INFO.class_names,
                       score="margin", reduction="mean")  # fmt: skip
    assert [t.name for t in found] == [
        "background[margin,mean]", "liver[margin,mean]", "spleen[margin,mean]",
        "liver@everywhere[margin,mean] minus spleen[margin,mean]",
    ]  # fmt: skip


def test_masks_from_files(tmp_path: Path) -> None:
    grid = oblique_grid()
    given = labels(grid, 2)
    path = tmp_path / "lesion.nii.gz"
    write_nifti(path, given.layers, grid)
    whole = target_of(f"mask:{path}")
    assert isinstance(whole, ClassTarget)
    assert (whole.class_name, whole.name) == (None, "lesion")
    part = target_of(f"class:liver@mask:{path}#label_2")
    assert isinstance(part, ClassTarget)
    assert isinstance(part.where, Mask)
    assert part.name == "liver@lesion:label_2"
    assert np.array_equal(part.where.on(grid), given.mask("organ_2"))
    assert isinstance(whole.where, Mask)
    assert np.array_equal(whole.where.on(grid), given.layers[0] > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a target over the predicted mask needs a class"),
        ("liver", "'liver' is not a target; write all, class:NAME"),
        ("class:", "'class:' names no class"),
        ("class:@everywhere", "names no class; write class:NAME"),
        ("class:liver@nowhere", "'class:liver@nowhere' is not a target"),
        ("mask:", "'mask:' is not a target"),
        ("voxel:", "voxel takes whole numbers, got ''"),
        ("voxel:1,b,2", "'voxel:1,b,2': voxel takes whole numbers, got '1,b,2'"),
        ("voxel:1.5,2,3", "voxel takes whole numbers"),
        ("class:liver@instance:first", "instance takes whole numbers, got 'first'"),
        ("instance:1", "a target over the instance:1 mask needs a class"),
        ("class:liver minus spleen", "'spleen' is not a target"),
        ("all minus class:liver", "'all' is not a target"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target_of(text)


def test_nothing_asked_for() -> None:
    with pytest.raises(TargetError, match="no target was asked for"):
        targets_of([], INFO.class_names)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(VoxplainError, match="nowhere"):
        target_of("mask:/nowhere/lesion.nii.gz")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "probabilities"}, "score is one of logit, probability, log_odds, margin"),
        ({"reduction": "max"}, "reduction is one of sum, mean, weighted, dice; got 'max'"),
    ],
)
def test_words_that_are_not_known(settings: dict[str, str], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        ClassTarget("liver", **settings)  # type: ignore[arg-type]
