"""Classification networks by name: nothing is downloaded, and timm gets plain arguments only."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from voxplain.errors import ModelError, TrustError
from voxplain.models.network import build_network

EFFICIENTNET = {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1}


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("trust_code", [False, True])
def test_a_network_that_downloads_by_default_does_not(tmp_path: Path, trust_code: bool) -> None:
    target = "monai.networks.nets.EfficientNetBN"
    module = build_network(
        target, EFFICIENTNET | {"num_classes": 2}, tmp_path, trust_code=trust_code
    )
    assert isinstance(module, nn.Module)
    off = EFFICIENTNET | {"pretrained": False}
    assert isinstance(build_network(target, off, tmp_path), nn.Module)


@pytest.mark.parametrize(
    ("target", "arguments", "name"),
    [
        ("monai.networks.nets.EfficientNetBN", EFFICIENTNET | {"pretrained": True}, "pretrained"),
        ("monai.networks.nets.resnet10", {"pretrained": "weights.pt"}, "pretrained"),
        ("monai.networks.nets.HoVerNet", {"pretrained_url": "there"}, "pretrained_url"),
    ],
)
def test_pretrained_weights_are_refused(
    target: str, arguments: dict[str, Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=rf"network\.arguments\.{name}: nothing is downloaded"):
        build_network(target, arguments, tmp_path)


# -- timm ---------------------------------------------------------------------------------
class Made(nn.Linear):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(2, 2)
        self.given = given


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in that notes what it is asked for."""

    def create_model(
        model_name: str, pretrained: bool = True, checkpoint_path: str = "", **kwargs: Any
    ) -> nn.Module:
        return Made({"model_name": model_name, "pretrained": pretrained,
                     "checkpoint_path": checkpoint_path, **kwargs})  # fmt: skip

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.mark.usefixtures("timm")
def test_a_card_may_name_a_network_of_timm(tmp_path: Path) -> None:
    asked = {"model_name": "resnet18.a1_in1k", "num_classes": 3, "in_chans": 1, "img_size": 96}
    for arguments in (asked, asked | {"pretrained": False}):
        made = build_network("timm.create_model", arguments, tmp_path)
        assert isinstance(made, Made)
        assert made.given == asked | {"pretrained": False, "checkpoint_path": ""}


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"model_name": "hf-hub:someone/net"}, TrustError, "timm's own list .*'hf-hub:someone/n"),
        ({"model_name": "hf_hub:net"}, TrustError, "fetched from elsewhere"),
        ({"model_name": "local-dir:net"}, TrustError, "--trust-code"),
        ({"model_name": "../net"}, TrustError, "fetched from elsewhere"),
        ({"model_name": "net\n"}, TrustError, "fetched from elsewhere"),
        ({"model_name": ["net"]}, TrustError, "fetched from elsewhere"),
        ({"model_name": "net", "checkpoint_path": "x.pth"}, TrustError, "got checkpoint_path"),
        ({"model_name": "net", "pretrained_cfg": {"url": "x"}}, TrustError, "pretrained_cfg"),
        ({"model_name": "net", "cache_dir": "x"}, TrustError, "got cache_dir"),
        ({"model_name": "net", "norm_layer": "x", "y": 1}, TrustError, "got norm_layer, y"),
        ({"model_name": "net", "pretrained": True}, ModelError, "nothing is downloaded"),
    ],
)
def test_what_timm_could_load_is_refused(
    arguments: dict[str, Any], kind: type[ModelError], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        build_network("timm.create_model", arguments, tmp_path)
    assert type(caught.value) is kind


@pytest.mark.usefixtures("timm")
def test_trust_allows_other_arguments_and_still_no_download(tmp_path: Path) -> None:
    asked = {"model_name": "net", "act_layer": "gelu"}
    made = build_network("timm.create_model", asked, tmp_path, trust_code=True)
    assert isinstance(made, Made)
    assert made.given == asked | {"pretrained": False, "checkpoint_path": ""}
    with pytest.raises(ModelError, match="nothing is downloaded"):
        build_network("timm.create_model", asked | {"pretrained": True}, tmp_path, trust_code=True)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("target", ["timm.models.create_model", "timm.create_model.x", "timm.data"])
def test_only_the_one_function_of_timm(target: str, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="would import timm"):
        build_network(target, {"model_name": "net"}, tmp_path)


def test_a_file_beside_the_card_is_not_taken_for_timm(tmp_path: Path, timm: ModuleType) -> None:
    (tmp_path / "timm.py").write_text("raise AssertionError('was run')")
    for trust_code in (False, True):
        made = build_network(
            "timm.create_model", {"model_name": "net"}, tmp_path, trust_code=trust_code
        )
        assert isinstance(made, Made)
    assert sys.modules["timm"] is timm


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "pip install timm"),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            rf"nms does not exist.*torchvision, whose build does not fit torch {torch.__version__}",
        ),
        (ImportError("something else"), r"\(ImportError: something else\)$"),
    ],
)
def test_what_failed_and_why_when_timm_cannot_be_imported(
    error: Exception, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        assert name == "timm"
        raise error

    monkeypatch.setattr("voxplain.models.network.importlib.import_module", fail)
    with pytest.raises(ModelError, match=sentence.replace("+", r"\+")):
        build_network("timm.create_model", {"model_name": "net"}, tmp_path)
