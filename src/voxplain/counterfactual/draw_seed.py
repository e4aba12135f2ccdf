"""Seeds of single steps, so that no state of a random generator has to be kept."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def step_generator(seed: int, stream: str, step: int) -> torch.Generator:
    """Return torch's generator, on the CPU, of one step of one stream."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), step]).generate_state(
        2, np.uint32
    )
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
