"""The same numbers on a CUDA device as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Everywhere,
    IntegratedGradients,
    SmoothGrad,
    VarGrad,
    explain,
)
from voxplain.attribution.method import Method
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import SmallNet
from voxplain.testing.phantoms import oblique_grid, volume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA here"),
]


@pytest.mark.parametrize(
    "method",
    [
        SmoothGrad(n=3),
        SmoothGrad(n=8, tolerance=0.5),
        VarGrad(n=3),
        IntegratedGradients(n=3, baseline=Blurred(2.0), gap_tolerance=0.5),
    ],
    ids=lambda m: m.name,
)
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_cuda_equals_cpu(method: Method, score: str) -> None:
    net = SmallNet(3, n_channels=2, n_classes=3, seed=1)
    model = wrap(
        net,
        classes=("background", "left", "right"),
        channels=("a", "b"),
        window=WindowSettings((5, 6, 7), overlap=0.4),
    )
    image = volume(oblique_grid((9, 11, 13)), n_channels=2)
    target = ClassTarget("left", Everywhere(), score=score)  # type: ignore[arg-type]
    maps = []
    for device in ("cpu", "cuda"):
        compute = Compute(device=device, precision="float64")
        result = explain(model, image, target, method, compute=compute)
        maps.append(result[target.name].values)
        assert next(net.parameters()).device.type == "cpu"
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=1e-10 * np.abs(maps[0]).max())
