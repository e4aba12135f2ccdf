"""Memory of freed tensors kept for the next ones, on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h
_MOST = 2**31 - 1
_USUAL_MMAP_MAX, _USUAL_TRIM, _USUAL_MMAP = 65536, 128 * 1024, 32 * 1024**2


@contextmanager
def kept_heap() -> Iterator[None]:
    """Let glibc keep freed memory; on leaving, all that is free goes back to the system.

    Large tensors are otherwise mapped and unmapped for every operation, and the kernel fills
    each page with zeros anew: a third of the time of a network on a CPU. Without glibc nothing
    is changed.

    Notes
    -----
    Afterwards the thresholds are fixed at the values that malloc reaches by itself in a process
    that works with large arrays; they no longer adapt.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        libc.malloc_trim(0)
