"""Attribution maps as DICOM Parametric Maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.export.identity import finish, made_by, maker, text
from voxplain.export.source import Source
from voxplain.records.attribution import Attribution
from voxplain.records.explanation import Explanation
from voxplain.report.scale import limit


def parametric_map(
    explanation: Explanation,
    kept: Attribution,
    channel: str,
    values: NDArray[np.floating[Any]],
    source: Source,
    series_number: int,
) -> Any:
    """Make a Parametric Map of one channel of a map: its values as float32, one frame a slice.

    Parameters
    ----------
    explanation, kept
        How it was made, and what it means.
    channel
        Name of the channel.
    values
        Values of the channel on the grid of the series.
    source
        The series of the channel.
    series_number
        Of the series that holds it.

    Notes
    -----
    Viewers are told a window symmetric around 0 that ends where the report's colours end.
    """
    import highdicom as hd

    stored = source.frames(np.asarray(values, np.float32))
    end = limit(stored) or 1.0
    seen = source.patient.get("RecognizableVisualFeatures") == "YES"
    of = kept.target if len(kept.channels) == 1 else f"{kept.target}, {channel}"
    written = hd.pm.ParametricMap(
        source_images=source.headers,
        pixel_array=stored,
        contains_recognizable_visual_features=seen,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=text(kept.kind, 16),
                lut_explanation=text(f"{kept.kind}, {kept.unit}", 64),
                unit=_unit(kept.unit),
                value_range=(float(stored.min()), float(stored.max())),
                slope=1.0,
                intercept=0.0,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.0, window_width=2 * end)],
        content_label="ATTRIBUTION",
        content_description=text(f"{explanation.method} of {of}", 64),
        series_instance_uid=hd.UID(),
        series_number=series_number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        **maker(explanation),
    )
    words = (
        f"{made_by(explanation)}, target {kept.target}, channel {channel}, {kept.kind} in "
        f"{kept.unit}"
    )
    return finish(written, source, f"{of}, {explanation.method}", words)


def _unit(unit: str) -> Any:
    """Write a unit as UCUM does where it has no sign for it: an annotation in braces."""
    from highdicom.sr import CodedConcept

    plain = unit.encode("ascii", "replace").decode().replace("{", "(").replace("}", ")")
    return CodedConcept(f"{{{plain}}}", "UCUM", text(unit, 64))
