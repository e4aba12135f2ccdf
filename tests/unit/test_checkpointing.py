"""Blocks that run forward again in the backward pass: same gradients, less memory, all undone."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import DynUNet, SwinUNETR, UNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxplain.errors import ModelError
from voxplain.inference.checkpointing import blocks_of, checkpointed
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.inference.rectifiers import RectifierRule
from voxplain.models import wrap
from voxplain.space.windows import WindowSettings
from voxplain.testing.phantoms import oblique_grid, volume


def unet(rank: int) -> nn.Module:
    return UNet(rank, 2, 2, channels=(4, 8, 16), strides=(2, 2), norm="batch")


def residual_unet(rank: int) -> nn.Module:
    return UNet(rank, 2, 2, channels=(4, 8), strides=(2,), norm="instance", num_res_units=2)


def dynunet(rank: int) -> nn.Module:
    return DynUNet(
        rank, 2, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2],
        filters=[4, 6, 8], res_block=True, dropout=0.1,
    )  # fmt: skip


def swin(rank: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SwinUNETR(2, 2, feature_size=12, depths=(1, 1, 1, 1), spatial_dims=rank)


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int, int]] = {
    "unet": (unet, 3, 16),
    "unet in 2D": (unet, 2, 16),
    "residual unet": (residual_unet, 3, 12),
    "dynunet": (dynunet, 3, 16),
    "dynunet in 2D": (dynunet, 2, 16),
    "swin": (swin, 2, 64),
}


def run(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Logits, and the bytes that autograd keeps for them."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(x.clone())
    return logits, sum(kept.values())


def gradients(logits: torch.Tensor, x: torch.Tensor, n: int = 3) -> torch.Tensor:
    """Gradients of single logits, several backward passes on one graph."""
    flat = logits.flatten()
    places = torch.linspace(0, len(flat) - 1, n).long()
    return torch.stack([torch.autograd.grad(flat[i], x, retain_graph=True)[0] for i in places])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_and_the_graph_is_smaller(name: str) -> None:
    make, rank, side = NETWORKS[name]
    network = make(rank).eval().requires_grad_(False).double()
    x = torch.rand(1, 2, *[side] * rank, dtype=torch.float64, requires_grad=True)
    logits, n_bytes = run(network, x)
    wanted = gradients(logits, x)
    with checkpointed(network) as names:
        assert names
        again, n_again = run(network, x)
        found = gradients(again, x)
        flat = again.flatten()
        rows = torch.eye(len(flat), dtype=torch.float64)[[0, len(flat) - 1]]
        (together,) = torch.autograd.grad(flat, x, rows, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(again, logits, rtol=0, atol=0)
    scale = wanted.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(together, wanted[[0, -1]], rtol=0, atol=1e-12 * scale)
    assert n_again < 0.5 * n_bytes
    after, n_after = run(network, x)
    assert n_after == n_bytes
    assert not any("forward" in vars(m) for m in network.modules())
    assert after.requires_grad


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.n_runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_runs += 1
        return self.conv(x).relu()


def test_each_backward_pass_runs_a_block_once_more_and_no_graph_none() -> None:
    network = nn.Sequential(Counted(), nn.Conv2d(1, 1, 1)).requires_grad_(False)
    block = network[0]
    with checkpointed(network) as names:
        assert names == ["0"]
        with torch.no_grad():
            network(torch.rand(1, 1, 4, 4))
        assert block.n_runs == 1
        x = torch.rand(1, 1, 4, 4, requires_grad=True)
        logits = network(x)
        assert block.n_runs == 2
        gradients(logits, x, n=3)
        assert block.n_runs == 5


def test_blocks_are_the_outermost_small_parts_that_run() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    no_parameters = nn.Sequential(nn.ReLU(), nn.Identity())
    other = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    deep = nn.Sequential(nn.Sequential(nn.Sequential(other)), nn.ReLU())
    network = nn.Module()
    network.listed = nn.ModuleList([conv, conv, no_parameters])
    network.deep = deep
    network.single = nn.Conv2d(1, 1, 1)
    # a list does not run itself; `deep` holds parts four deep, its first part three
    assert blocks_of(network) == {"listed.0": conv, "deep.0": deep[0]}
    assert blocks_of(conv) == {}  # the whole network is no block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(conv, torch.rand(1, 1, 2, 2))
    assert blocks_of(nn.Sequential(traced)) == {}


def test_everything_is_undone_after_an_error() -> None:
    network = unet(2)

    def fail() -> None:
        with checkpointed(network):
            assert any("forward" in vars(m) for m in network.modules())
            network(torch.rand(1, 3, 8, 8))

    with pytest.raises(RuntimeError, match="channels"):
        fail()
    assert not any("forward" in vars(m) for m in network.modules())


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.leaky_relu_(x, 0.1))


def test_a_block_that_changes_its_input_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), InPlace()).requires_grad_(False)
    x = torch.rand(1, 1, 3, 3, requires_grad=True)
    with checkpointed(network), pytest.raises(ModelError, match=r"block 1 \(InPlace\) changes its"):
        network(x)
    with checkpointed(network), torch.no_grad():
        network(x)  # nothing to run again


def test_parts_with_hooks_run_once() -> None:
    network = residual_unet(2).eval().requires_grad_(False)
    x = torch.rand(1, 2, 8, 8, requires_grad=True)
    seen: list[torch.Size] = []
    part = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    handle = part.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with checkpointed(network):
        gradients(network(x), x)
    handle.remove()
    assert len(seen) == 1


def test_rules_for_rectifiers_see_each_once() -> None:
    network = UNet(2, 2, 2, channels=(4, 8), strides=(2,), act="relu").eval().requires_grad_(False)
    x = torch.rand(1, 2, 8, 8, requires_grad=True)
    with RectifierRule("guided") as rule:
        wanted = gradients(network(x), x)
        n_seen = rule.n_seen
    with checkpointed(network), RectifierRule("guided") as rule:
        found = gradients(network(x), x)
        assert rule.n_seen == n_seen > 0
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_blocks_of_a_network_that_checkpoints_itself() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(checkpoint(self.inner, x, use_reentrant=False))

    network = nn.Sequential(Own(), nn.Conv2d(1, 2, 1)).double().requires_grad_(False)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    wanted = gradients(network(x), x)
    with checkpointed(network) as names:
        assert names == ["0"]
        found = gradients(network(x), x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_compute_switches_it_on_and_provenance_does_not_tell() -> None:
    window = WindowSettings((8, 12, 8), overlap=0.25)
    model = wrap(
        unet(3), classes=("background", "lesion"), channels=("a", "b"), window=window, check=False
    )
    image = volume(oblique_grid((9, 13, 11)), 2, seed=4)
    found = []
    for compute in (Compute("cpu"), Compute("cpu", checkpointing=True)):
        with open_pipeline(model, image, compute) as pipeline:
            pipeline.one_window()
            assert pipeline.graph_bytes is not None
            found.append(pipeline.graph_bytes)
        assert not any("forward" in vars(m) for m in model.module.modules())
    assert found[1] < 0.5 * found[0]
    assert Compute("cpu", checkpointing=True).to_dict() == Compute("cpu").to_dict()
