"""One generator on one image: what it would look like without what is abnormal, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.config import PostFilterConfig
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.mask import change, mask_of
from voxplain.counterfactual.preparation import Cut, Preparation
from voxplain.counterfactual.stack import Stack
from voxplain.errors import DataError
from voxplain.inference.compute import Compute, frozen, full_precision
from voxplain.space.grid import Grid
from voxplain.space.intensity_range import foreign_range
from voxplain.space.resample import resample
from voxplain.space.volume import Volume

COLUMNS = (
    "slice", "position", "logit_before", "probability_before", "logit_after",
    "probability_after", "changed_px", "mean_change",
)  # fmt: skip
"""One row a slice: its number; where it lies; the classifier's logit and probability of abnormal
of the picture and of its repair; pixels of the slice in the mask; mean of |x − x'|/2 over the
picture."""

N_WINDOW_SLICES = 16
"""Slices that are compared with the window; least share of what both span."""
Unit = Literal["image", "prepared"]


@dataclass(frozen=True, eq=False)
class Applied:
    """What a generator makes of an image, all on the image's own grid.

    Parameters
    ----------
    counterfactual
        float32, grid.shape. `unit` ``image``: the image plus `difference`, untouched wherever
        that is 0. ``prepared``: the prepared image plus `difference`; if a 2D model prepared
        the slices of a volume, NaN where there was no picture.
    difference
        Signed, float32, grid.shape, in intensities.
    mask
        uint8, grid.shape; 1 is abnormal.
    table
        Columns `COLUMNS`.
    grid
        The image's.
    unit
        ``image``: intensities are the image's. ``prepared``: they are those that a model's
        preparation makes, which need not have a way back.
    notes
        Said if the intensities (prepared, 1st to 99th percentile above the lowest) and the
        window share less than 2 % of what both span: pictures are blank.
    """

    counterfactual: NDArray[np.float32]
    difference: NDArray[np.float32]
    mask: NDArray[np.uint8]
    table: pd.DataFrame
    grid: Grid
    unit: Unit
    notes: tuple[str, ...] = ()


def apply_image(
    image: Volume,
    preparation: Preparation,
    generator: Generator,
    classifier: Classifier,
    *,
    threshold: float,
    post: PostFilterConfig,
    batch: int = 32,
    slices: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    gate: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Applied:
    """Repair every slice of an image and put the slices back.

    difference = (x' − x) · (high − low)/2, mask = filtered(|x − x'|/2 > threshold). Padding is
    never changed: there x' = x also for the second look of the classifier.

    Parameters
    ----------
    image
        2D or 3D, of one channel.
    preparation
        Makes pictures of slices, as in training.
    generator, classifier
        Of one run; lent, and given back as they were.
    threshold
        In [0, 1).
    post
        Filter of the masks, alike for all slices.
    batch
        Pictures in one pass; moves no result.
    slices
        Numbers of slices from the feet, the left or the back; None: all.
    device
        To run on.
    gate
        Leave slices alone that the classifier calls normal (logit < 0); the paper does not.
    progress
        Called with the number of slices done.

    Returns
    -------
    Applied
        On the image's grid. If the preparation begins with a model's, values are in that
        model's intensities, and what was found on the model's grid is resampled, the difference
        linearly and the mask to the nearest voxel.

    Raises
    ------
    ImageError
        If the image holds NaN or infinite values.
    DataError
        If the threshold is out of range, no slice was chosen, or the image does not fit the
        preparation.

    Notes
    -----
    Threshold and filter act on the picture, in whose pixels both were tuned; the mask is then
    brought back. Intensities outside of the window are clipped for the networks only: the
    difference is added to the image itself. Cost: one pass of the generator and two of the
    classifier a slice; memory: a few arrays of the image's size.

    References
    ----------
    .. [1] Shvetsov et al., COIN: Counterfactual inpainting for weakly supervised semantic
       segmentation for medical images, arXiv 2404.12832.
    """
    if not 0 <= threshold < 1:
        raise DataError(f"the threshold of |x − x'|/2 is in [0, 1), got {threshold}")
    compute = Compute(device=str(device))
    prepared = preparation.prepared(image)
    unit: Unit = "image" if preparation.model is None else "prepared"
    by_slice = preparation.is_flat
    stack = Stack(prepared.grid, keeps_pictures=by_slice)
    rows: list[dict[str, Any]] = []
    with (
        torch.no_grad(),
        full_precision(),
        frozen(generator, compute, 2),
        frozen(classifier.network, compute, 2),
    ):
        for cut, repair, numbers in _repairs(
            preparation.cuts(prepared, slices), generator, classifier, batch, gate, compute
        ):
            changed = change(cut.picture, repair)
            n_changed = stack.add(
                cut,
                (repair - cut.picture) * np.float32(preparation.step),
                mask_of(changed, threshold, post),
                np.asarray(preparation.intensity(cut.picture), np.float32),
            )
            mean = float(changed[cut.inside].mean())
            rows.append(
                {"slice": cut.index, "position": cut.plane.title, **numbers}
                | {"changed_px": n_changed, "mean_change": mean}
            )
            if progress is not None:
                progress(len(rows))
    if not rows:
        raise DataError(f"{image.name}: no slice was chosen; choose at least one")
    difference = stack.difference(image.grid)
    before = stack.pictures(image.grid) if by_slice else resample(prepared, image).data[0]
    return Applied(
        counterfactual=(before + difference).astype(np.float32, copy=False),
        difference=difference,
        mask=stack.mask(image.grid).astype(np.uint8),
        table=pd.DataFrame(rows, columns=list(COLUMNS)),
        grid=image.grid,
        unit=unit,
        notes=_notes(preparation, prepared),
    )


def _notes(preparation: Preparation, prepared: Volume) -> tuple[str, ...]:
    """Say if the image lies outside of the window, judged on some of its slices."""
    n = len(preparation.planes(prepared.grid))
    chosen = sorted(set(np.linspace(0, n - 1, min(n, N_WINDOW_SLICES)).round().astype(int)))
    cuts = preparation.raw(prepared, [int(i) for i in chosen])
    values = np.concatenate([np.ravel(one).astype(np.float64) for *_, one in cuts])
    if values.min() == values.max():
        return ("all intensities are equal",)
    low, high = preparation.low, preparation.high
    foreign = foreign_range(values, low, high)
    if foreign is None:
        return ()
    first, last = foreign
    return (
        f"its intensities lie between {first:.4g} and {last:.4g} (1st to 99th percentile), the "
        f"window of the run is {low:.4g} to {high:.4g}: not an image as it was trained on, "
        "believe nothing",
    )


def _repairs(
    cuts: Iterator[Cut], generator: Generator, classifier: Classifier, batch: int, gate: bool,
    compute: Compute,
) -> Iterator[tuple[Cut, NDArray[np.float32], dict[str, float]]]:  # fmt: skip
    """Give each cut with its repair and what the classifier says before and after."""
    while some := list(islice(cuts, batch)):
        pictures = torch.from_numpy(np.stack([cut.picture for cut in some])[:, None])
        x = pictures.to(compute.torch_device(), torch.float32)
        inside = torch.from_numpy(np.stack([cut.inside for cut in some])[:, None]).to(x.device)
        before = classifier.logit(x)
        is_open = inside & (before >= 0)[:, None, None, None] if gate else inside
        repaired = torch.where(is_open, generator.repair(x).image, x)
        after = classifier.logit(repaired)
        repairs = repaired[:, 0].float().cpu().numpy()
        for i, cut in enumerate(some):
            yield cut, repairs[i], {
                "logit_before": float(before[i]),
                "probability_before": float(before[i].sigmoid()),
                "logit_after": float(after[i]),
                "probability_after": float(after[i].sigmoid()),
            }  # fmt: skip
