"""`read_data`: what lies in a folder decides which layout it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.data import bids, datalist, images, manifest, nnunet, totalsegmentator
from voxplain.data.cohort import Cohort
from voxplain.errors import DataError, all_faults
from voxplain.space.labelmap import nearest


@dataclass(frozen=True)
class Layout:
    """A way to lay out data: what it needs, how it is recognised and read.

    Parameters
    ----------
    needs
        What it consists of, for people.
    fits
        Whether a path looks like it.
    read
        Reads it.
    settings
        Settings of `read_data` that it takes.
    """

    needs: str
    fits: Callable[[Path], bool]
    read: Callable[..., Cohort]
    settings: tuple[str, ...] = ()


LAST_RESORT = "images"
LAYOUTS = {
    "nnunet": Layout(nnunet.NEEDS, nnunet.fits, nnunet.read),
    "datalist": Layout(datalist.NEEDS, datalist.fits, datalist.read, ("base",)),
    "totalsegmentator": Layout(
        totalsegmentator.NEEDS, totalsegmentator.fits, totalsegmentator.read
    ),
    "bids": Layout(bids.NEEDS, bids.fits, bids.read, ("channels", "labels")),
    "manifest": Layout(
        manifest.NEEDS, manifest.fits, manifest.read, ("channels", "labels", "base")
    ),
    LAST_RESORT: Layout(images.NEEDS, images.fits, images.read),
}


def read_data(
    path: str | os.PathLike[str],
    layout: str | None = None,
    *,
    channels: Sequence[str] = (),
    labels: str | None = None,
    base: str | os.PathLike[str] | None = None,
    is_strict: bool = True,
) -> Cohort:
    """Find the cases of a data folder, of a datalist or of a manifest.

    Parameters
    ----------
    path
        A folder, a JSON datalist or a table.
    layout
        One of `LAYOUTS`; default: recognised by what lies there. A plain folder of images is
        the last resort.
    channels
        BIDS: suffix of each channel. Manifest: name of each channel's column.
    labels
        BIDS: suffix of the label maps. Manifest: their column.
    base
        Datalist and manifest: folder that paths are relative to; default: the file's own.
    is_strict
        Raise what is wrong with the lists of cases. Else it is kept in `Cohort.faults`, for
        `check`.

    Returns
    -------
    Cohort
        No image is opened, and none need exist: see `check`.

    Raises
    ------
    DataError
        If there is nothing, no layout or several fit, a setting is not of this layout, or
        (every fault at once) a case is not described as its layout asks.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"no such file or folder: {place}")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no layout {layout!r}{nearest(layout, tuple(LAYOUTS))}")
    name = layout or _recognised(place)
    given: dict[str, Any] = {
        "channels": tuple(channels),
        "labels": labels,
        "base": None if base is None else Path(base),
    }
    settings = {key: value for key, value in given.items() if value}
    for key in settings:
        if key not in LAYOUTS[name].settings:
            raise DataError(
                f"{place}: {key} is not a setting of the layout {name}"
                f"{_known(LAYOUTS[name].settings)}; leave it out, or name another layout"
            )
    if name not in ("manifest", "datalist") and not place.is_dir():
        raise DataError(f"{place}: is a file; {name} needs {LAYOUTS[name].needs}")
    cohort = LAYOUTS[name].read(place, **settings)
    wrong = [fault for fault in cohort.faults if fault.kind == "fault"]
    if is_strict and wrong:
        raise DataError(all_faults(str(place), map(str, wrong)))
    return cohort


def _known(settings: tuple[str, ...]) -> str:
    return f" (its settings: {', '.join(settings)})" if settings else " (it has none)"


def _recognised(path: Path) -> str:
    """Name of the one layout that fits."""
    found = [name for name, kind in LAYOUTS.items() if name != LAST_RESORT and kind.fits(path)]
    if not found and LAYOUTS[LAST_RESORT].fits(path):
        return LAST_RESORT
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path}: could be {' or '.join(found)}; say which, e.g. --layout {found[0]} "
            f"(Python: layout={found[0]!r})"
        )
    needs = "\n".join(f"  - {name}: {kind.needs}" for name, kind in LAYOUTS.items())
    raise DataError(f"{path}: no data layout recognised. There are\n{needs}")
