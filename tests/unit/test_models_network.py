from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from voxplain.errors import ModelError, TrustError
from voxplain.models.network import build_network

OWN = """
from pathlib import Path
from torch import nn
Path({marker!r}).touch()

class Net(nn.Conv2d):
    kind = {kind!r}

    def __init__(self):
        import beside_lazy
        super().__init__(1, beside_lazy.N_CLASSES, 1)

def not_a_network():
    return 7
"""


def own_network(folder: Path, module: str = "own_network_module", kind: str = "first") -> Path:
    """A folder with a network of its own; importing it leaves a file ``was_run``."""
    folder.mkdir(exist_ok=True)
    marker = folder / "was_run"
    (folder / f"{module}.py").write_text(OWN.format(marker=str(marker), kind=kind))
    (folder / "beside_lazy.py").write_text("N_CLASSES = 3\n")
    return marker


def test_a_monai_class_and_a_monai_function(tmp_path: Path) -> None:
    unet = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    deep = {"channels": [2, 4], "strides": [2]}
    assert isinstance(build_network("monai.networks.nets.UNet", unet | deep, tmp_path), nn.Module)
    resnet = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2}
    made = build_network("monai.networks.nets.resnet10", resnet, tmp_path)
    assert type(made).__name__ == "ResNet"
    convolution = {"in_channels": 1, "out_channels": 2, "kernel_size": 1}
    assert isinstance(build_network("torch.nn.Conv3d", convolution, tmp_path), nn.Conv3d)


def test_own_code_is_named_and_not_run(tmp_path: Path) -> None:
    marker = own_network(tmp_path)
    with pytest.raises(TrustError) as caught:
        build_network("own_network_module.Net", {}, tmp_path)
    message = str(caught.value)
    assert "would import own_network_module.Net and run its code" in message
    assert str(tmp_path / "own_network_module.py") in message
    assert "--trust-code" in message
    assert "trust_code=True" in message
    assert not marker.exists()
    assert "own_network_module" not in sys.modules


def test_own_code_runs_with_trust_and_leaves_the_import_path_alone(tmp_path: Path) -> None:
    marker = own_network(tmp_path)
    path = list(sys.path)
    module = build_network("own_network_module.Net", {}, tmp_path, trust_code=True)
    assert isinstance(module, nn.Conv2d)
    assert module.out_channels == 3
    assert marker.exists()
    assert sys.path == path
    assert "own_network_module" not in sys.modules


def test_two_cards_may_name_their_module_alike(tmp_path: Path) -> None:
    own_network(tmp_path / "a", kind="first")
    own_network(tmp_path / "b", kind="second")
    first = build_network("own_network_module.Net", {}, tmp_path / "a", trust_code=True)
    second = build_network("own_network_module.Net", {}, tmp_path / "b", trust_code=True)
    assert (first.kind, second.kind) == ("first", "second")


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "monai.bundle.run",
        "monai.networks.utils.save_state",
        "torch.nn.init.constant_",
        "torch.nn.functional.relu",
        "torch.nnx.Conv3d",
        "os.system",
        "pathlib.Path",
        "not_installed_anywhere.Net",
    ],
)
def test_what_is_no_network_class_needs_trust(target: str, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="--trust-code"):
        build_network(target, {"command": "true"}, tmp_path)


def test_an_installed_module_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"module 'json' from .*json.__init__\.py"):
        build_network("json.JSONDecoder", {}, tmp_path)
    with pytest.raises(TrustError, match=r"neither in .* nor installed"):
        build_network("not_installed_anywhere.Net", {}, tmp_path)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("monai.networks.nets.UNett", {}, "has no 'UNett'; did you mean .*'UNet'"),
        ("monai.networks.nets.nots.UNet", {}, "cannot import monai.networks.nets.nots"),
        ("torch.nn.Conv3d", {"in_chanels": 1}, "do not fit torch.nn.Conv3d.in_channels, .*TypeE"),
    ],
)
def test_faults_of_target_and_arguments(
    target: str, arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        build_network(target, arguments, tmp_path)


def test_trusted_code_must_give_a_network(tmp_path: Path) -> None:
    own_network(tmp_path)
    with pytest.raises(ModelError, match=r"gives int, expected a torch.nn.Module"):
        build_network("own_network_module.not_a_network", {}, tmp_path, trust_code=True)
    with pytest.raises(ModelError, match="is not a class"):
        build_network("beside_lazy.N_CLASSES", {}, tmp_path, trust_code=True)
