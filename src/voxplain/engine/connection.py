"""How Dask is reached and configured, without a trace outside of a ``with``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxplain.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 10.0

# a busy worker is never told to pause: it would not go on; one that takes all is ended
CONFIG = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.allowed-failures": 1,
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 1000,
}


def threads_of(n_workers: int) -> int:
    """Torch threads of each of some workers of this machine: the processors shared out."""
    from dask.system import CPU_COUNT

    return int(max(1, CPU_COUNT // n_workers))


def version_asker() -> Callable[[], str | None]:
    """Return a function that is sent as code, for a worker may have no voxplain."""

    def ask() -> str | None:
        try:
            import voxplain
        except ImportError:
            return None
        return voxplain.__version__

    return ask


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler, by its address or its file.

    Raises
    ------
    ClusterError
        If none answers.
    """
    from distributed import Client

    is_file = address.endswith(".json")
    if is_file and not Path(address).is_file():
        raise ClusterError(f"no scheduler file {address}; start one with --scheduler-file")
    place: dict[str, Any] = {"scheduler_file": address} if is_file else {"address": address}
    try:
        client = Client(  # type: ignore[no-untyped-call]
            **place, timeout=CONNECT_S, set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error}); start one with dask scheduler, "
            "and give its address as tcp://HOST:8786"
        ) from error
    with client:
        yield client


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Dask's own log meanwhile; what matters comes as a result or an error."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {name: logging.getLogger(name).level for name in {"distributed", *names}}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
