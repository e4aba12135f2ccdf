from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.weights import find_weights, fit_weights, read_weights, weights_sha256
from voxplain.testing.models import Linear, SmallNet


def equal(a: nn.Module, b: nn.Module) -> bool:
    return weights_sha256(a) == weights_sha256(b)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back_whatever_the_format(tmp_path: Path, suffix: str) -> None:
    source, target = SmallNet(seed=1), SmallNet(seed=2)
    path = tmp_path / f"weights{suffix}"
    state = source.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert not equal(source, target)
    fit_weights(target, read_weights(path), "file")
    assert equal(source, target)


@pytest.mark.parametrize("key", ["state_dict", "model", "network_weights", "model_state_dict"])
def test_nested_and_data_parallel_state_dicts(tmp_path: Path, key: str) -> None:
    source, target = SmallNet(seed=1), SmallNet(seed=2)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 3, key: state}, tmp_path / "weights.pt")
    fit_weights(target, read_weights(tmp_path / "weights.pt"), "file")
    assert equal(source, target)


def test_a_network_whose_own_names_begin_with_module(tmp_path: Path) -> None:
    source = nn.ModuleDict({"module": SmallNet(seed=1)})
    target = nn.ModuleDict({"module": SmallNet(seed=2)})
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    fit_weights(target, read_weights(tmp_path / "weights.pt"), "file")
    assert equal(source, target)


class Stranger:
    """Not on torch's list of types that are safe to read."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Stranger(), "holds more than tensors, and reading it could run code"),
        ([1, 2], "expected a state dict, got list"),
        ({"epoch": 3}, r"expected a state dict of tensors, got keys \['epoch'\]"),
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        read_weights(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
def test_broken_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        read_weights(path)


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a \.safetensors, \.pt, \.pth file, got \.h5"):
        read_weights(tmp_path / "weights.h5")


def test_where_weights_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights\.safetensors or .*weights\.pt"):
        find_weights(tmp_path)
    (tmp_path / "weights.pt").touch()
    assert find_weights(tmp_path) == tmp_path / "weights.pt"
    (tmp_path / "weights.safetensors").touch()
    assert find_weights(tmp_path) == tmp_path / "weights.safetensors"
    with pytest.raises(ModelError, match=r"no weights: expected .*other\.pt"):
        find_weights(tmp_path, "other.pt")


def mismatch(target: nn.Module, state: dict[str, torch.Tensor]) -> str:
    before = weights_sha256(target)
    with pytest.raises(ModelError) as caught:
        fit_weights(target, state, "weights.pt")
    assert weights_sha256(target) == before
    return str(caught.value)


def test_a_mismatch_says_counts_names_and_cause() -> None:
    state = SmallNet(n_classes=5).state_dict()
    state["extra"] = state.pop("first.bias")
    message = mismatch(SmallNet(n_classes=3), state)
    assert "weights.pt: weights do not fit the network: 4 tensors in the file, 4 in" in message
    assert "1 missing: first.bias" in message
    assert "1 unexpected: extra" in message
    assert "2 other shape (file against network): last.weight (5, 4, 3, 3, 3) against" in message
    assert "some names agree: check network.arguments" in message


def test_causes_of_a_mismatch() -> None:
    shapes = mismatch(SmallNet(n_classes=3), SmallNet(n_classes=5).state_dict())
    assert "names agree and shapes differ" in shapes
    assert "missing" not in shapes
    other = mismatch(SmallNet(), Linear([[1.0]]).state_dict())
    assert "no name agrees" in other
    many = mismatch(nn.Linear(1, 1), {f"layer{i}": torch.zeros(1) for i in range(9)})
    assert "9 unexpected: layer0, layer1, layer2, layer3, …" in many


def test_hash_sees_names_types_shapes_and_every_bit() -> None:
    module = SmallNet()
    before = weights_sha256(module)
    assert weights_sha256(SmallNet()) == before
    with torch.no_grad():
        module.first.bias[0] = torch.nextafter(module.first.bias[0], torch.tensor(9.0))
    assert weights_sha256(module) != before
    assert weights_sha256(SmallNet().double()) != before
    assert weights_sha256(nn.Sequential(SmallNet())) != before
    row, column = Linear([[1.0, 2.0]]), Linear([[1.0], [2.0]], bias=[0.0])
    assert weights_sha256(row) != weights_sha256(column)
    assert weights_sha256(SmallNet().bfloat16()) != weights_sha256(SmallNet(seed=1).bfloat16())
