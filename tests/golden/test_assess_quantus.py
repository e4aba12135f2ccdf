"""Quantus' FaithfulnessCorrelation gives the same values for the same perturbations.

It draws its subsets with ``numpy.random.choice``, which is made to hand over ours. Its "black" is
the smallest intensity, so the images start at 0; it draws channels apart, so they have one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.assess.faithfulness_correlation import faithfulness_correlation
from voxplain.assess.removal import Remover
from voxplain.attribution import ClassTarget, Gradient, InputXGradient, SmoothGrad
from voxplain.attribution.ask import ask
from voxplain.attribution.maps import compute_maps
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

N_RUNS = 12


class Summed(nn.Module):
    """Target values (batch, classes): sums of each class's logits over its predicted mask."""

    def __init__(self, net: nn.Module, mask: torch.Tensor, *, is_anew: bool) -> None:
        super().__init__()
        self.net = net
        self.mask = mask
        self.is_anew = is_anew

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.net(x.double())  # Quantus hands over float32
        predicted = logits.argmax(1, keepdim=True) if self.is_anew else self.mask
        classes = torch.arange(logits.shape[1]).reshape(1, -1, *[1] * (logits.ndim - 2))
        return (logits * (predicted == classes)).flatten(2).sum(2)


@pytest.mark.parametrize("shape", [(9, 11), (5, 7, 11)])
@pytest.mark.parametrize("is_anew", [False, True])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_faithfulness_correlation(
    shape: tuple[int, ...], is_anew: bool, is_scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quantus import FaithfulnessCorrelation
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    image = volume(grid, seed=1)
    image = image.with_data((image.data - image.data.min()).astype(np.float32))
    net = SmallNet(len(shape), seed=5)
    model = describe(net, rank=len(shape), window=shape)
    wanted = [ClassTarget(f"class_{k}") for k in (1, 2)]
    with open_pipeline(model, image, Compute("cpu", "float64")) as pipeline:
        question = ask(pipeline, image, wanted, None, seed=3)
        mask = question.prediction_logits.argmax(0)
        remover = Remover(question, n_runs=N_RUNS, n_removed=17, anew=wanted)
        removals = remover.run()
        methods = (Gradient(), InputXGradient(), SmoothGrad(n=3, noise=0.2))
        maps = [compute_maps(question, method) for method in methods]
    drops = removals.anew if is_anew else removals.drops
    assert drops is not None

    def subsets() -> Iterator[np.ndarray]:
        yield from removals.removed

    values = []
    for one in maps:
        for t, k in enumerate((1, 2)):
            drawn = subsets()
            with warnings.catch_warnings(), monkeypatch.context() as patched:
                warnings.simplefilter("ignore")

                def choice(n: int, size: int, replace: bool) -> np.ndarray:
                    assert (n, size, replace) == (np.prod(shape), 17, False)
                    return next(drawn)  # noqa: B023

                patched.setattr(np.random, "choice", choice)
                metric = FaithfulnessCorrelation(
                    nr_runs=N_RUNS, subset_size=17, normalise=is_scaled, abs=False,
                    return_aggregate=False, disable_warnings=True,
                )  # fmt: skip
                (theirs,) = metric(
                    Summed(net, mask, is_anew=is_anew).double().eval(),
                    image.data[None].astype(float),
                    np.array([k]), one.values[t][None], channel_first=True, device="cpu",
                )  # fmt: skip
            ours = faithfulness_correlation(removals.sums(one)[:, t], drops[:, t]).value
            assert ours == pytest.approx(theirs, abs=1e-6)
            values.append(ours)
    assert np.ptp(values) > 0.1
