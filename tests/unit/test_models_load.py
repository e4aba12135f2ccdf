"""What lies in a folder decides the family; settings are checked before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxplain.errors import ModelError
from voxplain.models import load, load_model


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "at", "family"),
    [
        (["model.yaml"], "", "model card"),
        (["model.yaml"], "model.yaml", "model card"),
        (["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"], "", "nnU-Net"),
        (["dataset.json", "fold_0/x"], "", "nnU-Net"),
        (["plans.json", "fold_0/x"], "fold_0", "nnU-Net"),
        (["T__P__3d_fullres/plans.json"], "", "nnU-Net"),
        (["configs/metadata.json"], "", "MONAI bundle"),
        (["model.yaml", "configs/metadata.json"], "", "model card"),
    ],
)
def test_the_folder_decides(names: list[str], at: str, family: str, tmp_path: Path) -> None:
    assert load._family_of(str(made(tmp_path, *names) / at)) == family


def test_a_task_has_a_prefix() -> None:
    assert load._family_of("totalseg:total") == "TotalSegmentator"


def test_what_is_no_model_is_told_with_all_that_would_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it holds weights\.pt") as caught:
        load_model(made(tmp_path, "weights.pt"))
    for family in load.FAMILIES:
        assert family in str(caught.value)
    with pytest.raises(ModelError, match="nothing is not there"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fold": "0"}, "no model setting 'fold'; did you mean 'folds'"),
        ({"step": "2"}, "step: .*less than or equal to 1, got '2'"),
        ({"mirroring": "perhaps"}, "mirroring: "),
        ({"folds": "a"}, "folds: expected all, or folds such as 0,1, got 'a'"),
        ({"step": "0", "mirroring": "x"}, "2 faults"),
    ],
)
def test_settings_are_checked(options: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(made(tmp_path, "plans.json"), **options)


def test_a_card_has_no_settings(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model card: no model setting 'folds'; there is none"):
        load_model(made(tmp_path, "model.yaml"), folds="all")


@pytest.mark.parametrize(
    ("given", "folds"), [("all", "all"), ("0,2", (0, 2)), (1, (1,)), ([0, 1], (0, 1)), ("3", (3,))]
)
def test_folds_are_words_or_numbers(given: object, folds: object) -> None:
    assert load.NnUNetOptions.model_validate({"folds": given}).folds == folds
    assert load.NnUNetOptions.model_validate({"mirroring": "off"}).mirroring is False
