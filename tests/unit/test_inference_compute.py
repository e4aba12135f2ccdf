from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from voxplain.errors import MethodError
from voxplain.inference.compute import (
    Compute,
    Precision,
    free_memory_bytes,
    frozen,
    peak_memory_bytes,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "precision is one of float32, float64, bf16, fp16; got 'float1"),
        ({"memory_format": "last"}, "memory_format is one of auto, contiguous, channels_last"),
        ({"batch_size": 0}, "batch_size is at least 1, got 0"),
        ({"device": "gpu"}, "unknown device 'gpu'; use auto, cpu, cuda or cuda:0"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        Compute(**settings)


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MethodError, match=r"torch sees 0 CUDA device\(s\)"):
        Compute("cuda:0")
    assert Compute("auto").torch_device() == CPU


def test_words_become_torch() -> None:
    assert Compute("cpu").dtype == torch.float32
    assert Compute("cpu", precision="float64").dtype == torch.float64
    assert Compute("cpu", precision="bf16").dtype == torch.float32
    assert Compute("cpu").layout(3) == torch.contiguous_format
    last = Compute("cpu", memory_format="channels_last")
    assert (last.layout(2), last.layout(3)) == (torch.channels_last, torch.channels_last_3d)
    assert Compute("cpu", precision="bf16").layout(3) == torch.contiguous_format
    with Compute("cpu", precision="bf16").autocast():
        assert (
            torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype is torch.bfloat16
        )
    with Compute("cpu").autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype is torch.float32


def test_to_dict_is_plain() -> None:
    assert Compute("cpu", batch_size=3).to_dict() == {
        "device": "cpu",
        "precision": "float32",
        "batch_size": 3,
        "memory_format": "auto",
    }


def test_memory_is_positive() -> None:
    assert peak_memory_bytes(CPU) > 2**20
    assert free_memory_bytes(CPU) > 2**20


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_frozen_lends_and_takes_back(precision: Precision) -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout())
    net[1].eval()
    pointers = [t.data_ptr() for t in net.state_dict().values()]
    compute = Compute("cpu", precision=precision, memory_format="channels_last")
    with frozen(net, compute, 3) as lent:
        assert lent is net
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        assert {p.dtype for p in net.parameters()} == {compute.dtype}
        assert net[1].running_mean.dtype is compute.dtype
        assert net[1].num_batches_tracked.dtype is torch.int64
        assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
        net[1].running_mean.add_(1)  # buffers are lent as copies
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert all(p.requires_grad and p.dtype is torch.float32 for p in net.parameters())
    assert [t.data_ptr() for t in net.state_dict().values()] == pointers
    assert not net[1].running_mean.any()


def test_frozen_keeps_shared_parameters_shared() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with frozen(nn.Sequential(first, second), Compute("cpu", precision="float64"), 2):
        assert first.weight is second.weight
        assert first.weight.dtype is torch.float64
    assert first.weight is second.weight
    assert first.weight.dtype is torch.float32
