"""A result as DICOM objects that reference the series it was computed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from voxplain.errors import GridError, ImageError, OutputError
from voxplain.export.key_images import key_image, key_series
from voxplain.export.maps import parametric_map
from voxplain.export.segments import segmentation
from voxplain.export.source import Source, read_sources
from voxplain.records.archive import slugs
from voxplain.records.explanation import Explanation
from voxplain.space.dicom_files import unchecked_values
from voxplain.space.grid import Grid
from voxplain.space.labelmap import nearest
from voxplain.space.read import read_image
from voxplain.space.resample import resample, resample_labels
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_folder

Part = Literal["seg", "map", "key"]
PARTS: tuple[Part, ...] = get_args(Part)
Told = Callable[[str], None]
_WORDS = {
    "seg": "prediction",
    "map": "map (explain with --save-maps)",
    "key": "map to show (explain with --save-maps)",
}


def export_dicom(
    explanation: Explanation,
    source: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    only: Sequence[str] = PARTS,
    progress: Told | None = None,
) -> tuple[list[Path], tuple[str, ...]]:
    """Write prediction, maps and key images of a result as DICOM.

    Parameters
    ----------
    explanation
        Result on the image that `read_image` reads from the source, or on the same voxels in
        another order of axes (a NIfTI file made from the series); then with its image.
    source
        Folder of the DICOM series that was explained (``DIR#2``: the second of several), or one
        a channel.
    out
        New or empty folder for the files; made whole or not at all.
    only
        ``seg``: the prediction as a Segmentation, one segment a class that is present;
        ``map``: each kept map as a Parametric Map, one a channel, but none of a radiograph;
        ``key``: the planes through the peak of each kept map as a Secondary Capture picture.
    progress
        Called with the name of each file before it is made.

    Returns
    -------
    files
        What was written.
    generated
        Names of the UIDs that the source lacks and that references had to make up; the same in
        every run.

    Raises
    ------
    MissingExtraError
        If highdicom is not installed.
    GridError
        If the result does not lie on the slices of the series.
    ImageError
        If the series is not one volume, or not what was explained.
    OutputError
        If there is nothing to write, the folder holds files, or the series are of several
        patients or studies.

    Notes
    -----
    Patient and study are copied from the source and nothing is added to them: what was
    anonymised stays so. Every object says that it is for research and not for diagnosis. Each
    run makes new objects, with UIDs of their own.
    """
    target = Path(out)
    parts = _parts(only)
    places = [Path(p) for p in ([source] if isinstance(source, (str, Path)) else source)]
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"{target} holds files, which would be sent along; give a new folder")
    with unchecked_values():
        own = _same(explanation, read_image(places))
        wanted = _possible(parts, own.grid)
        sources = read_sources(places, own.sha256())
        with atomic_folder(target) as folder:
            for name, make in _files(explanation, own, sources, wanted):
                if progress is not None:
                    progress(name)
                made = make()
                if made is not None:
                    made.save_as(folder / name, enforce_file_format=True)
            names = sorted(path.name for path in folder.iterdir())
            if not names:
                lacking = " and no ".join(_WORDS[part] for part in wanted)
                raise OutputError(f"nothing to write: the result holds no {lacking}")
    generated = sorted({name for one in sources for name in one.generated})
    return [target / name for name in names], tuple(generated)


def _parts(words: Sequence[str]) -> tuple[Part, ...]:
    for word in words:
        if word not in PARTS:
            raise OutputError(f"nothing to write is called {word!r}{nearest(word, PARTS)}")
    return tuple(part for part in PARTS if part in words)


def _possible(parts: tuple[Part, ...], grid: Grid) -> tuple[Part, ...]:
    """Leave maps out of what can be written of a radiograph."""
    if grid.rank == 3:
        return parts
    if parts == ("map",):
        raise OutputError(
            "a radiograph has no place in the patient, which a Parametric Map needs; write its key "
            "images: --only key"
        )
    return tuple(part for part in parts if part != "map")


def _files(
    explanation: Explanation, image: Volume, sources: list[Source], parts: Sequence[Part]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name of each file, and what makes its object."""
    series_number = 1000 * max(1, sources[0].number) + 1
    if "seg" in parts and explanation.prediction is not None:
        labels = resample_labels(explanation.prediction, image.grid)
        yield (
            "segmentation.dcm",
            partial(segmentation, explanation, labels, sources, series_number),
        )
    stems = slugs(target.name for target in explanation.targets)
    for name, kept in explanation.attributions.items() if "map" in parts else ():
        values = resample(Volume(kept.values, kept.grid, kept.channels), like=image.grid).data
        ends = slugs(kept.channels)
        for channel, data, own in zip(kept.channels, values, sources, strict=True):
            series_number += 1
            end = f"_{ends[channel]}" if len(kept.channels) > 1 else ""
            yield (
                f"map_{stems[name]}{end}.dcm",
                partial(parametric_map, explanation, kept, channel, data, own, series_number),
            )
    if "key" in parts:
        shown = explanation if explanation.has_image else replace(explanation, image=image)
        series = key_series(series_number + 1)
        for number, name in enumerate(explanation.attributions, 1):
            yield f"key_{stems[name]}.dcm", partial(key_image, shown, name, sources, series, number)


# -- the same image -------------------------------------------------------------------------
def _same(explanation: Explanation, own: Volume) -> Volume:
    """Image of the series, if it is what was explained."""
    channels = tuple(map(str, explanation.table.frame["channel"].unique()))
    if len(channels) != own.n_channels:
        raise ImageError(
            f"the result has {len(channels)} channels ({', '.join(channels)}) and {own.n_channels} "
            "series were given; give one a channel, in the same order"
        )
    own = replace(own, channels=channels)
    _check_place(explanation.regions.grid, own.grid)
    if own.sha256() == explanation.provenance.image_sha256:
        return own
    if not explanation.has_image:
        raise ImageError(
            "the series is not the image that was explained (the hashes differ); give the series "
            "that was explained, or explain this one: voxplain explain --image DIR"
        )
    there = resample(explanation.image, like=own.grid)
    if not np.array_equal(there.data, own.data):
        raise ImageError(
            "the series is not the image that was explained: voxels differ by up to "
            f"{float(np.abs(there.data - own.data).max()):.4g}; give the series that was "
            "explained, or explain this one: voxplain explain --image DIR"
        )
    return own


def _check_place(found: Grid, grid: Grid) -> None:
    """Refuse a result whose voxels are not those of the series, in whatever order of axes."""
    is_same = found.rank == grid.rank and (
        found.matches(grid) or (grid.rank == 3 and found.reorient(grid.orientation).matches(grid))
    )
    if not is_same:
        raise GridError(
            f"the result lies on {found.describe()}, the series on {grid.describe()}; explain the "
            "series itself: voxplain explain --image DIR"
        )
