from __future__ import annotations

import subprocess
import sys

import pytest

from voxplain.inference.heap import kept_heap

# in a process of its own: a heap with a large hole from earlier work would serve the tensors
PROGRAM = """
import resource, psutil, torch
from voxplain.inference.heap import kept_heap

def faults_of_large_tensors():
    def work():
        for _ in range(20):
            torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults_of_large_tensors()
with kept_heap():
    inside = faults_of_large_tensors()
    held = psutil.Process().memory_info().rss
print(outside, inside, held - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is tuned on Linux only")
def test_pages_are_reused_inside_and_given_back_after() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    outside, inside, given_back = map(int, done.stdout.split())
    assert inside < outside / 5
    assert given_back > 40 * 2**20


def test_it_ends_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), kept_heap():
        raise KeyboardInterrupt
