"""Radiographs through MONAI's networks, as a user has them: 8-bit PNG files and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.classifier_cards import write_card

from voxplain.attribution import explain
from voxplain.inference.compute import Compute
from voxplain.models import load_model
from voxplain.report import write_report
from voxplain.space import read_image
from voxplain.testing.conformance import check_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CXR = SHARED / "cxr" / "pneumonia_03.png"
CT = SHARED / "ct_thorax_abdomen" / "ct.nii.gz"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not (CXR.is_file() and CT.is_file()), reason="../shared is not there"),
]
FROM_8_BITS: dict[str, Any] = {"scale": {"from": [0, 255]}}
IMAGENET: list[dict[str, Any]] = [
    FROM_8_BITS,
    {"zscore": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
]
NETS = "monai.networks.nets."


def network(name: str, **arguments: Any) -> dict[str, Any]:
    return {"target": NETS + name, "arguments": {"spatial_dims": 2, **arguments}}


VIT = network(
    "ViT", in_channels=1, img_size=[96, 128], patch_size=[16, 16], hidden_size=48, mlp_dim=96,
    num_layers=2, num_heads=4, classification=True, num_classes=3, post_activation="none",
)  # fmt: skip
CARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "densenet": (
        "one_logit",
        {"network": network("DenseNet121", in_channels=1, out_channels=1),
         "size": [160, 128], "intensity": [FROM_8_BITS]},
    ),
    "efficientnet": (
        "multi_label",
        {"network": network("EfficientNetBN", model_name="efficientnet-b0", num_classes=2),
         "size": [128, 160], "repeat": 3, "intensity": IMAGENET},
    ),
    "resnet": (
        "softmax",
        {"network": network("resnet18", n_input_channels=1, num_classes=3),
         "size": [96, 120], "intensity": ["zscore"]},
    ),
    "senet": (
        "softmax",
        {"network": network("SEResNet50", in_channels=1, num_classes=3),
         "size": [96, 120], "intensity": ["percentiles"]},
    ),
    "vit": ("softmax", {"network": VIT, "size": [96, 128], "intensity": [FROM_8_BITS]}),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_radiograph(name: str, tmp_path: Path) -> None:
    output, settings = CARDS[name]
    model = load_model(write_card(tmp_path / name, output, **settings))
    image = read_image(CXR)
    check_model(model, image)
    asked = model.info.class_names[0]
    exact = Compute("cpu", precision="float64")
    found = explain(model, image, f"class:{asked}", "gradient", compute=exact)
    leaf = torch.from_numpy(model.prepare(image).data.astype(np.float64)).requires_grad_()
    logits = model.module.double()(leaf[None])
    logits = logits[0] if isinstance(logits, tuple) else logits
    (gradient,) = torch.autograd.grad(logits[0, 0], leaf)
    rows = found.table.frame
    total = float(gradient.sum())
    scale = float(gradient.abs().sum())
    assert scale > 0
    assert float((rows["positive"] + rows["negative"]).sum()) == pytest.approx(
        total, abs=1e-9 * scale
    )
    assert found.targets[0].score == pytest.approx(float(logits[0, 0].detach()), rel=1e-9)
    assert found[asked].values.shape == (1, 320, 320)


def test_a_report_of_a_radiograph(tmp_path: Path) -> None:
    output, settings = CARDS["vit"]
    model = load_model(write_card(tmp_path / "vit", output, **settings))
    found = explain(model, read_image(CXR), "all", "gradient")
    page = write_report(found, tmp_path / "report.html").read_text("utf-8")
    assert "320\u2009×\u2009320" in page
    assert page.count('<img src="data:image/webp') == 2 * 3


def test_a_volume(tmp_path: Path) -> None:
    card = write_card(
        tmp_path / "net", "softmax", channels=["ct"], orientation="RAS", size=[48, 40, 56],
        intensity=[{"clip": [-1024, 1024]}, {"scale": {"from": [-1024, 1024]}}],
    )  # fmt: skip
    model, image = load_model(card), read_image(CT)
    check_model(model, image)
    found = explain(model, image, "class:pneumonia minus class:normal", "gradient")
    assert found.attributions["pneumonia minus normal"].values.shape == (1, *image.grid.shape)
    assert sum(answer.probability or 0 for answer in found.classes) == pytest.approx(1)


def test_the_picture_is_read_as_it_is_seen() -> None:
    np.testing.assert_array_equal(read_image(CXR).data[0], np.asarray(Image.open(CXR)))
