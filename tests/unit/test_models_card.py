from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxplain.errors import ModelError
from voxplain.models.card_file import read_card
from voxplain.space.windows import WindowSettings

GOOD: dict[str, Any] = {
    "name": "net",
    "kind": "segmentation",
    "network": {"target": "monai.networks.nets.UNet", "arguments": {"spatial_dims": 3}},
    "input": {
        "channels": ["flair", "mprage"],
        "orientation": "ras",
        "spacing": [1, 1.5, 2],
        "intensity": [{"clip": [0, 9]}, {"zscore": {"over": "nonzero"}, "channels": ["flair"]}],
    },
    "window": {"size": [16, 24, 32]},
    "activation": "softmax",
    "classes": {0: "background", 1: "lesion"},
}


def card(tmp_path: Path, **changes: Any) -> Path:
    """Write the good card with values replaced, by dotted path; None removes the key."""
    raw = copy.deepcopy(GOOD)
    for dotted, value in changes.items():
        *parents, key = dotted.split("__")
        place = raw
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(key)
        else:
            place[key] = value
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def faults(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_card(path)
    return str(caught.value)


def test_a_good_card(tmp_path: Path) -> None:
    found = read_card(card(tmp_path))
    assert found.classes == ("background", "lesion")
    assert found.input.channels == ("flair", "mprage")
    assert found.input.orientation == "RAS"
    assert found.input.spacing == (1.0, 1.5, 2.0)
    assert [s.step for s in found.input.intensity] == ["clip", "zscore"]
    assert found.rank == 3
    assert found.weights is None
    assert found.window is not None
    assert found.window.settings() == WindowSettings((16, 24, 32))


def test_classes_as_a_list_and_by_id_in_any_order(tmp_path: Path) -> None:
    by_list = read_card(card(tmp_path, classes=["a", "b", "c"])).classes
    by_id = read_card(card(tmp_path, classes={2: "c", 0: "a", 1: "b"})).classes
    assert by_list == by_id == ("a", "b", "c")


def test_rank_comes_from_whatever_tells_it(tmp_path: Path) -> None:
    path = card(tmp_path, window=None, input__orientation=None, input__spacing=None, input__rank=2)
    assert read_card(path).rank == 2


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = card(
        tmp_path,
        kind="segmentaton",
        activation=None,
        input__spacng=[1, 1, 1],
        input__orientation="RAX",
        window__overlap=1.0,
        classes={0: "a", 2: "b"},
    )
    message = faults(path)
    assert "6 faults" in message
    assert "kind: expected 'segmentation' or 'classification', got 'segmentaton'" in message
    assert "activation is missing" in message
    assert "unknown key 'spacng' in input; did you mean 'spacing'?" in message
    assert "input.orientation: expected one letter each" in message
    assert "window.overlap: should be less than 1, got 1.0" in message
    assert "classes: class ids are 0, 1, 2, … without a gap, got [0, 2]: no 1" in message


def test_faults_behind_an_unknown_key_are_told_too(tmp_path: Path) -> None:
    message = faults(card(tmp_path, windw={}, window__sise=[1], window__size=[16, 16]))
    assert "unknown key 'windw'; did you mean 'window'" in message
    assert "unknown key 'sise' in window; did you mean 'size'?" in message
    assert "window.size has 2, input.orientation has 3" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": {0: "a", 1: True}}, r"classes.1: expected text .in quotes .*, got True"),
        ({"classes": ["a", "a"]}, "'a' is named twice"),
        ({"classes": []}, "name at least one"),
        ({"classes": ["lesion"]}, "softmax over one class is always 1"),
        ({"input__channels": []}, "name at least one"),
        ({"input__spacing": [1, -1, 1]}, r"input.spacing.1: should be greater than 0, got -1"),
        ({"input__size": [4, 4, 4]}, "spacing or size, not both"),
        ({"input__orientation": "RRS"}, "e.g. RAS"),
        ({"input__intensity": [{"zscore": {}, "channels": ["flar"]}]}, "did you mean 'flair'"),
        ({"input__intensity": [{"zscore": {"mean": [1], "std": 1}}]}, "each of the 2 channels"),
        ({"input__intensity": [{"klip": [0, 1]}]}, "intensity.0: unknown step 'klip'"),
        ({"kind": "classification"}, "a classifier sees the whole image"),
        ({"network__target": "UNet"}, "an import path such as monai.networks.nets.UNet"),
        ({"network": None}, "network is missing"),
        ({"network": "monai.networks.nets.UNet"}, "network: expected a mapping"),
        ({"input__channels": "ct"}, "input.channels: expected a list, got 'ct'"),
        ({"window__size": [0, 3, 3]}, "window.size.0: should be greater than 0"),
        ({"window__blend": "gausian"}, "window.blend: expected 'constant' or 'gaussian'"),
        (
            {"window": None, "input__orientation": None, "input__spacing": None},
            "2D or 3D\\? Nothing tells",
        ),
    ],
)
def test_each_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_card(card(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "model.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\nkind: b", "not valid YAML: line 2"),
        ("name: a\nname: b", "line 2, column 1: 'name' is given twice"),
        ("classes: {0: a, 0: b}", "0 is given twice"),
        ("- a\n- b", "a model card is a mapping .*got list"),
        ("", "a model card is a mapping .*got NoneType"),
        ("name: !!python/object/apply:os.system [true]", "not valid YAML: line 1"),
    ],
)
def test_what_is_no_card(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_card(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model card: .*model.yaml"):
        read_card(tmp_path / "model.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ModelError, match="cannot be read as text"):
        read_card(path)
