from __future__ import annotations

import resource
import sys

import psutil
import pytest
import torch

from voxplain.inference.heap import kept_heap


def faults_of_large_tensors() -> int:
    def work() -> None:
        for _ in range(20):
            torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)

    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is tuned on Linux only")
def test_pages_are_reused_inside_and_given_back_after() -> None:
    outside = faults_of_large_tensors()
    with kept_heap():
        inside = faults_of_large_tensors()
        held = psutil.Process().memory_info().rss
    assert inside < outside / 5
    assert held - psutil.Process().memory_info().rss > 40 * 2**20


def test_it_ends_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), kept_heap():
        raise KeyboardInterrupt
