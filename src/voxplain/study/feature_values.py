"""Features of lesions as one long table: what distributions, tests and models are made of."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from voxplain.errors import DataError
from voxplain.records.lesion_tables import INSTANCES, SALIENCY, check_columns
from voxplain.regions.lesion import TYPES
from voxplain.space.labelmap import nearest

MAP_FEATURES = ("peak_positive", "peak_negative", "mean_inside", "share", "peak_distance_mm")
"""Of a lesion, method and channel; see `voxplain.lesions.features.map_features`."""

LESION_FEATURES = ("volume_mm3", "probability_mean")
"""Of a lesion, without any map."""

FEATURES = (*MAP_FEATURES, *LESION_FEATURES)

NO_MAP = "none"
"""Method and channel of the features in `LESION_FEATURES`."""

KEY = ("model", "method", "channel", "feature")
"""What is compared among the types of lesions, one at a time."""

VALUES = (*KEY, "unit", "case", "patient", "instance", "type", "value")
"""One row a lesion and feature; value is missing where the lesion has none."""

_LESION = ["case", "model", "instance"]
_UNITS = {
    "share": "1", "peak_distance_mm": "mm", "volume_mm3": "mm³", "probability_mean": "1",
}  # fmt: skip


def feature_values(
    instances: pd.DataFrame,
    saliency: pd.DataFrame,
    *,
    features: Sequence[str] = FEATURES,
    methods: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Put the features of lesions into one long table.

    Parameters
    ----------
    instances, saliency
        From `voxplain.study.gather.gather`.
    features
        Of `FEATURES`.
    methods
        As in `saliency`; None: all.

    Returns
    -------
    pandas.DataFrame
        Columns `VALUES`. `LESION_FEATURES` have method and channel `NO_MAP`.

    Raises
    ------
    DataError
        If a feature, a method or a type of lesion is not known, a row of saliency has no
        lesion, or a method's maps have two units.
    LabelError
        If a column is missing.
    """
    check_columns(instances, INSTANCES, "instances")
    check_columns(saliency, SALIENCY, "saliency")
    for name in features:
        if name not in FEATURES:
            raise DataError(f"no feature {name!r}{nearest(name, FEATURES)}")
    known = list(dict.fromkeys(saliency["method"]))
    for name in methods or ():
        if name not in known:
            raise DataError(f"no method {name!r} in the results{nearest(name, known)}")
    strange = sorted(set(instances["type"]) - set(TYPES))
    if strange:
        raise DataError(f"types of lesions are {', '.join(TYPES)}, got {', '.join(strange)}")
    chosen = saliency if methods is None else saliency[saliency["method"].isin(methods)]
    about = instances[[*_LESION, "patient", "type"]]
    maps = chosen.merge(about, on=_LESION, how="left", validate="many_to_one")
    if maps["type"].isna().any():
        row = maps[maps["type"].isna()].iloc[0]
        raise DataError(
            f"saliency has lesion {row['instance']} of case {row['case']}, model {row['model']}, "
            "which is not among the instances; the two tables belong to different runs"
        )
    units = chosen.groupby(["model", "method", "channel"])["unit"].nunique()
    if (units > 1).any():
        model, method, channel = units[units > 1].index[0]
        raise DataError(
            f"maps of model {model}, method {method}, channel {channel} have {units.max()} units; "
            "values in different units cannot be compared; run all cases with one target"
        )
    parts = [
        maps.assign(feature=name, value=maps[name], unit=_UNITS.get(name, maps["unit"]))
        for name in features
        if name in MAP_FEATURES
    ]
    parts += [
        instances.assign(
            method=NO_MAP, channel=NO_MAP, feature=name, value=instances[name], unit=_UNITS[name]
        )
        for name in features
        if name in LESION_FEATURES
    ]
    if not parts:
        raise DataError(f"name at least one feature of {', '.join(FEATURES)}")
    whole = pd.concat([part[list(VALUES)] for part in parts], ignore_index=True)
    return whole.astype({"value": float})
