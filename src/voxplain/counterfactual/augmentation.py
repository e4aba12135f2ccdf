"""Random changes of training pictures that leave normal normal and abnormal abnormal."""

from __future__ import annotations

from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from voxplain.counterfactual.config import AugmentationConfig

_LOWEST = -1.0


@overload
def augmented(
    images: torch.Tensor, config: AugmentationConfig, rng: np.random.Generator
) -> torch.Tensor: ...
@overload
def augmented(
    images: NDArray[np.float32], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]: ...
def augmented(
    images: torch.Tensor | NDArray[np.float32],
    config: AugmentationConfig,
    rng: np.random.Generator,
) -> torch.Tensor | NDArray[np.float32]:
    """Change each picture of a batch at random.

    In this order: mirror; move, that is turn, scale and shift about the middle, linearly
    interpolated, −1 where nothing was; blur; contrast, x' = −1 + k·(x + 1); noise; clip to
    [−1, 1]. Sizes are uniform, up to those of the configuration.

    Parameters
    ----------
    images
        (batch, 1, rows, columns) in [−1, 1]; not changed.
    config
        How much.
    rng
        Each picture gets a child of it, so it does not depend on how many there are.

    Returns
    -------
    torch.Tensor | NDArray[np.float32]
        Like `images`, on the same device; computed on the CPU.

    Notes
    -----
    The paper's code lets 0 move in, which is mid-grey of pictures in [−1, 1]; this is −1. The
    final clip belongs to the definition.
    """
    if isinstance(images, torch.Tensor):
        arrays = images.detach().cpu().numpy()
        return torch.from_numpy(augmented(arrays, config, rng)).to(images)
    result = np.empty(images.shape, np.float32)
    for i, child in enumerate(rng.spawn(len(images))):
        result[i, 0] = _one(images[i, 0], config, child)
    return result


def _one(
    image: NDArray[np.float32], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One picture (rows, columns), changed."""
    is_mirrored, is_upset, is_moved, blur, noise = rng.random(5)
    turn, zoom, down, right, gain = rng.uniform(-1, 1, 5)
    if is_mirrored < config.flip_lr:
        image = image[:, ::-1]
    if is_upset < config.flip_ud:
        image = image[::-1]
    if is_moved < config.move:
        shift = config.shift * np.array([down, right]) * image.shape
        image = _moved(
            image, np.deg2rad(config.rotate_degrees * turn), 1 + config.scale * zoom, shift
        )
    if config.blur_px > 0:
        image = gaussian_filter(image, config.blur_px * blur, mode="nearest")
    if config.gain > 0:
        image = _LOWEST + (1 + config.gain * gain) * (image - _LOWEST)
    if config.noise > 0:
        spread = config.noise * noise
        image = image + spread * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(image, -1, 1), np.float32)


def _moved(
    image: NDArray[np.float32], turn: float, scale: float, shift: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Turn by radians (rows towards columns), scale and shift (rows, columns) about the middle."""
    cos, sin = np.cos(turn), np.sin(turn)
    back = np.array([[cos, sin], [-sin, cos]]) / scale
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - back @ (middle + shift)
    moved = affine_transform(image, back, offset, order=1, mode="constant", cval=_LOWEST)
    return np.asarray(moved, np.float32)
