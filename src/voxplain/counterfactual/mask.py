"""From a repair to a mask of what was abnormal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.counterfactual.config import PostFilterConfig
from voxplain.errors import GridError

_NEIGHBOURS = np.ones((1, 3, 3), bool)
"""3 × 3 pixels of one slice; slices do not touch."""
_TOUCHING = np.concatenate([0 * _NEIGHBOURS, _NEIGHBOURS, 0 * _NEIGHBOURS])


def change(
    images: NDArray[np.floating[Any]], repairs: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Return |x − x'|/2, the share of the window by which each pixel was changed.

    Parameters
    ----------
    images, repairs
        x and x' in [−1, 1], of one shape.

    Returns
    -------
    ndarray
        In [0, 1], same shape.

    Raises
    ------
    GridError
        If the shapes differ.
    """
    if images.shape != repairs.shape:
        raise GridError(f"images of shape {images.shape} and repairs of shape {repairs.shape}")
    return np.asarray(np.abs(images - repairs) / 2)


def mask_of(
    change: NDArray[np.floating[Any]], threshold: float, post: PostFilterConfig
) -> NDArray[np.bool_]:
    """Find the pixels that were changed by more than a threshold, then filter the mask.

    Parameters
    ----------
    change
        (n, rows, columns), or (rows, columns) of one slice.
    threshold
        A pixel is in the mask if its change is larger, not equal.
    post
        Opening and closing with 3 × 3 pixels, then removal of components smaller than
        `min_pixels`, then of all but the largest (the first of equals); pixels that share a
        corner are connected. What is empty stays empty.

    Returns
    -------
    ndarray
        Booleans, same shape.

    Raises
    ------
    GridError
        If there are not 2 or 3 axes.

    Notes
    -----
    Each slice is filtered alone and every slice alike. The published evaluation filters only
    slices whose true label is abnormal, which no user knows. Beyond the border there is
    neither foreground nor background, so closing takes nothing away there.

    References
    ----------
    .. [1] Shvetsov et al., COIN: Counterfactual inpainting for weakly supervised semantic
       segmentation for medical images, arXiv 2404.12832.
    """
    if change.ndim not in (2, 3):
        raise GridError(
            f"a change is (n, rows, columns) or (rows, columns), got shape {change.shape}"
        )
    above = change > threshold
    mask = above[None] if above.ndim == 2 else above
    if post.open_close:
        mask = _shrunk(_grown(_grown(_shrunk(mask))))  # opened, then closed
    if post.min_pixels > 1 or post.largest_only:
        mask = _chosen(mask, post.min_pixels, post.largest_only)
    return mask.reshape(change.shape)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(mask, _NEIGHBOURS, border_value=0))


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_erosion(mask, _NEIGHBOURS, border_value=1))


def _chosen(mask: NDArray[np.bool_], min_pixels: int, largest_only: bool) -> NDArray[np.bool_]:
    """Keep components by their size."""
    labels, n_found = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(labels.ravel(), minlength=n_found + 1)
    kept = sizes >= min_pixels
    kept[0] = False
    if largest_only:
        largest = np.zeros_like(kept)
        for one in labels:
            present = np.unique(one[one > 0])
            if len(present):
                largest[present[sizes[present].argmax()]] = True
        kept &= largest
    return np.asarray(kept[labels])
