"""Pictures of the planes through the peaks, for viewers that show neither segments nor maps."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from voxplain.export.identity import PURPOSE, finish, made_by, maker
from voxplain.export.source import Source
from voxplain.records.explanation import Explanation
from voxplain.report.colours import INK
from voxplain.report.drawing import MUTED, blank
from voxplain.report.plane_figures import planes

_DPI = 150
_LINE_INCHES = 0.19
_CHARACTER_INCHES = 0.078  # mean width at 9 points


def key_series(number: int) -> dict[str, Any]:
    """Name the series that holds the key images of one result."""
    import highdicom as hd

    return {"series_instance_uid": hd.UID(), "series_number": number}


def key_image(
    explanation: Explanation,
    target: str,
    sources: list[Source],
    series: dict[str, Any],
    number: int,
) -> Any:
    """Make a Secondary Capture of the three planes through the peak of a target.

    Parameters
    ----------
    explanation
        With its image.
    target
        One of its targets.
    sources
        The series that the picture is derived from; patient and study are the first one's.
    series, number
        See `key_series`; place in it, from 1.

    Notes
    -----
    A picture has no place in the patient, so it has no frame of reference; it references every
    slice.
    """
    import highdicom as hd

    figure = planes(explanation, target, scale="own").figure
    parts = (_heading(explanation, target, figure.get_size_inches()[0]), figure)
    pixels = np.vstack([_drawn(part) for part in parts])
    first = sources[0]
    written = hd.sc.SCImage.from_ref_dataset(
        first.headers[0],
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        sop_instance_uid=hd.UID(),
        instance_number=number,
        **series,
        **maker(explanation),
    )
    written.PatientOrientation = None  # three planes have no common one
    written.SourceImageSequence = [
        _reference(header) for source in sources for header in source.headers
    ]
    words = f"{made_by(explanation)}, target {target}"
    return finish(written, first, f"key images, {explanation.method}", words)


def _heading(explanation: Explanation, target: str, width: float) -> Figure:
    """Draw what is shown, how it was made and what for, so many inches wide."""
    n_characters = int((width - 0.2) / _CHARACTER_INCHES)
    asked = next(t.description for t in explanation.targets if t.name == target)
    lines = [
        (line, colour)
        for words, colour in (
            (f"{target}: {asked}", INK),
            (f"{PURPOSE}. {made_by(explanation)}", MUTED),
        )
        for line in textwrap.wrap(words, n_characters)
    ]
    height = _LINE_INCHES * len(lines) + 0.12
    heading = blank(width, height)
    for place, (line, colour) in enumerate(lines):
        y = 1 - (0.08 + _LINE_INCHES * place) / height
        heading.text(0.1 / width, y, line, fontsize=9, color=colour, va="top", parse_math=False)
    return heading


def _drawn(figure: Figure) -> NDArray[np.uint8]:
    """Red, green and blue of a figure."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _reference(header: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item
