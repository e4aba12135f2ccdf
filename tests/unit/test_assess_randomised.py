"""Weights drawn anew and given back: rules, order of the layers, and nothing left behind."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.assess.randomised import networks_of, randomised, weight_layers
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.testing.models import Mirrored, SmallNet, TrainingSensitive, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64")


class Classifier(nn.Module):
    """Convolution, norm with statistics, PReLU, attention, a token, and a head that is unused."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(4, 3, 1)
        self.head = nn.Linear(4, 3)
        self.token = nn.Parameter(torch.linspace(-1, 2, 4))
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.slope = nn.PReLU()
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        _ = self.unused.weight.shape, next(self.parameters()).dtype
        made = self.slope(self.norm(self.first(windows)))
        tokens = F.avg_pool2d(made, 3).flatten(2).transpose(1, 2) + self.token
        mixed, _ = self.mix(tokens, tokens, tokens, need_weights=False)
        return torch.as_tensor(self.head(mixed.mean(1)))


class Tied(nn.Module):
    """Two convolutions with one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv3d(1, 1, 3, padding=1)
        self.two = nn.Conv3d(1, 1, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.two(torch.tanh(self.one(windows))))


def trained(module: nn.Module) -> nn.Module:
    """Give every tensor values that no initialiser gives."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
    return module.eval()


def classifier() -> Model:
    return wrap(
        trained(Classifier()), classes=["a", "b", "c"], channels=["c"], rank=2,
        kind="classification",
    )  # fmt: skip


def state(module: nn.Module) -> dict[str, tuple[int, int, str]]:
    """Object, storage and hash of every tensor."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {
        name: (id(t), t.data_ptr(), hashlib.sha256(t.detach().numpy().tobytes()).hexdigest())
        for name, t in tensors
    }


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: t.detach().clone() for name, t in tensors}


IMAGE = volume(oblique_grid((9, 13), (0.7, 1.1)))
ORDER = ["first", "norm", "slope", "", "mix", "mix.out_proj", "head"]


def test_layers_stand_in_the_order_of_their_last_use() -> None:
    found = weight_layers(classifier(), IMAGE, DOUBLE)
    assert [layer.name for layer in found] == ORDER
    assert {layer.name: layer.n_parameters for layer in found} == {
        "first": 40, "norm": 8, "slope": 1, "": 4, "mix": 3 * 4 * 4 + 3 * 4, "mix.out_proj": 20,
        "head": 15,
    }  # fmt: skip
    assert [layer.kind for layer in found][1:3] == ["BatchNorm2d", "PReLU"]


def test_weights_come_back_after_success_and_after_an_error() -> None:
    model = classifier()
    before, mode = state(model.module), torch.get_rng_state()
    with randomised(model, ORDER, 3):
        assert state(model.module) != before
        with open_pipeline(model, IMAGE, DOUBLE):
            pass
    assert state(model.module) == before
    with (
        pytest.raises(ZeroDivisionError),
        randomised(model, ORDER, 3),
        open_pipeline(model, IMAGE, DOUBLE),
    ):
        _ = 1 / 0
    assert state(model.module) == before
    assert torch.equal(torch.get_rng_state(), mode)


def test_only_the_layers_named_change_and_each_by_its_own_rule() -> None:
    model = classifier()
    before = values(model.module)
    with randomised(model, ["norm", "slope", "", "mix"], 3):
        during = values(model.module)
    touched = {
        "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "slope.weight",
        "token", "mix.in_proj_weight", "mix.in_proj_bias",
    }  # fmt: skip
    for name, tensor in before.items():
        is_counter = name == "norm.num_batches_tracked"
        assert torch.equal(tensor, during[name]) == (name not in touched) or is_counter, name
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert bool((during[f"norm.{name}"] == value).all())
    assert float(during["slope.weight"]) == 0.25
    # no rule of its own: normal, of the trained mean and spread
    kernel, made = before["mix.in_proj_weight"], during["mix.in_proj_weight"]
    assert abs(float(made.mean() - kernel.mean())) < 4 * float(kernel.std()) / 48**0.5
    assert 0.6 < float(made.std() / kernel.std()) < 1.4


def test_a_layer_gets_its_framework_draw() -> None:
    model = classifier()
    with randomised(model, ["first"], 3):
        kernel = values(model.module)["first.weight"]
    # Kaiming uniform with a = sqrt(5): bound 1 / sqrt(fan in)
    assert float(kernel.abs().max()) <= 1 / 3
    assert float(kernel.abs().max()) > 0.25
    assert float(kernel.min()) < 0


def test_statistics_can_be_kept() -> None:
    model = classifier()
    before = values(model.module)
    with randomised(model, ["norm"], 0, statistics="keep"):
        during = values(model.module)
    assert torch.equal(before["norm.running_var"], during["norm.running_var"])
    assert not torch.equal(before["norm.weight"], during["norm.weight"])


def test_a_draw_depends_on_seed_and_name_alone() -> None:
    model = classifier()

    def drawn(names: list[str], seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(torch.seed() % 1000)
        with randomised(model, names, seed):
            return values(model.module)

    one, other = drawn(["first", "head"], 1), drawn(["head", "mix", "norm", "first"], 1)
    for name in ("first.weight", "first.bias", "head.weight", "head.bias"):
        assert torch.equal(one[name], other[name])
    assert not torch.equal(one["first.weight"], drawn(["first"], 2)["first.weight"])


def test_tied_weights_stay_tied_and_have_one_draw() -> None:
    net = Tied()
    model = describe(trained(net), n_classes=1)
    found = weight_layers(model, volume(), DOUBLE)
    assert {layer.name: layer.n_parameters for layer in found} == {"one": 28, "two": 1}
    draws = []
    for names in (["one"], ["two"], ["two", "one"]):
        with randomised(model, names, 7):
            assert net.one.weight is net.two.weight
            draws.append(net.one.weight.detach().clone())
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])
    assert float(draws[0].abs().max()) < 0.3  # all trained values are larger


def test_every_fold_is_drawn_on_its_own() -> None:
    folds = [trained(SmallNet(3, n_classes=2, seed=s)) for s in (0, 1)]
    model = Mirrored(folds, axes=(0,), n_classes=2)
    assert networks_of(model) == folds
    assert [layer.name for layer in weight_layers(model, volume(), DOUBLE)] == ["first", "last"]
    before = [state(fold) for fold in folds]
    first = [values(fold)["first.weight"] for fold in folds]
    with randomised(model, ["last"], 0):
        for fold, kernel in zip(folds, first, strict=True):
            assert torch.equal(values(fold)["first.weight"], kernel)
        kernels = [values(fold)["last.weight"] for fold in folds]
    assert not torch.equal(*kernels)
    assert max(float(kernel.abs().max()) for kernel in kernels) < 0.3
    assert [state(fold) for fold in folds] == before


def test_parametrised_weights_do_not_leak() -> None:
    net = SmallNet(2, n_classes=2)
    net.first = nn.utils.parametrizations.weight_norm(net.first)
    model = describe(trained(net), rank=2, n_classes=2)
    names = [layer.name for layer in weight_layers(model, IMAGE, DOUBLE)]
    assert set(names) == {"first", "first.parametrizations.weight", "last"}
    before = state(net)
    with randomised(model, names, 0):
        made = values(net)
        assert all(bool(torch.isfinite(t).all()) for t in made.values())
    assert state(net) == before


def test_running_statistics_alone_make_a_layer() -> None:
    net = TrainingSensitive([[1.0, -2.0]]).eval()
    model = describe(net, n_channels=2, n_classes=1)
    found = weight_layers(model, volume(n_channels=2), DOUBLE)
    assert [(layer.name, layer.n_parameters) for layer in found] == [("norm", 0), ("linear", 3)]
    assert net.norm.running_mean is not None
    with randomised(model, ["norm"], 0):
        assert net.norm.running_mean.tolist() == [0, 0]
    assert net.norm.running_mean.tolist() == [0.25, 0.75]
    with randomised(model, ["norm"], 0, statistics="keep"):
        assert net.norm.running_mean.tolist() == [0.25, 0.75]


class Recurrent(nn.Module):
    """An LSTM over rows: its weights go to the function as one list."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.utils.spectral_norm(nn.Linear(6, 3))
        self.rows = nn.LSTM(13, 6, batch_first=True)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.rows(windows[:, 0])[0][:, -1]))


def test_recurrent_and_spectral_weights() -> None:
    net = trained(Recurrent())
    model = wrap(net, classes=["a", "b", "c"], channels=["c"], rank=2, kind="classification",
                 check=False)  # fmt: skip
    names = [layer.name for layer in weight_layers(model, IMAGE, DOUBLE)]
    assert names == ["rows", "head"]
    before = state(net)
    with randomised(model, names, 0):
        made = values(net)
        assert float(made["rows.weight_ih_l0"].abs().max()) <= 6**-0.5
        assert bool(torch.isfinite(made["head.weight_orig"]).all())
        assert state(net)["head.weight_orig"] != before["head.weight_orig"]
        with open_pipeline(model, IMAGE, DOUBLE) as pipeline:
            assert bool(pipeline.logits(pipeline.clean, pipeline.inner).isfinite().all())
    assert state(net) == before


def test_errors_tell_what_to_do() -> None:
    model = classifier()
    with (
        pytest.raises(MethodError, match="no layer 'frist' with weights"),
        randomised(model, ["frist"], 0),
    ):
        pass
    with pytest.raises(MethodError, match="seed"), randomised(model, ["first"], -1):
        pass
    with (
        pytest.raises(MethodError, match="statistics is"),
        randomised(
            model,
            ["first"],
            0,
            statistics="drop",  # type: ignore[arg-type]
        ),
    ):
        pass
    net = describe(nn.Identity(), rank=2, n_classes=1)
    with pytest.raises(MethodError, match="no layer with weights"):
        weight_layers(net, IMAGE, DOUBLE)
