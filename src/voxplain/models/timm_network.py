"""Networks of timm: what a card may ask for without trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from voxplain.errors import TrustError

TARGET = "timm.create_model"
# Not among them: what loads files or fetches them (checkpoint_path, pretrained_cfg, cache_dir).
ALLOWED = (
    "model_name",
    "num_classes",
    "in_chans",
    "img_size",
    "patch_size",
    "global_pool",
    "drop_rate",
    "drop_path_rate",
    "pretrained",  # if false
)
_NAME = re.compile(r"\w+(\.\w+)*")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that make timm read or fetch anything but its own code.

    Raises
    ------
    TrustError
        If an argument is not in `ALLOWED`, or the name is one of another source
        (``hf-hub:…``, ``local-dir:…``).
    """
    name = arguments.get("model_name")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise TrustError(
            f"network.arguments.model_name: expected a name of timm's own list such as resnet18, "
            f"got {name!r}, which could be read or fetched from elsewhere{_TRUST}"
        )
    others = [key for key in arguments if key not in ALLOWED]
    if others:
        raise TrustError(
            f"network.arguments: {TARGET} takes {', '.join(ALLOWED[:-1])} from a card, got "
            f"{', '.join(others)}, which could load files or run code{_TRUST}"
        )


_TRUST = "; if you trust this card, allow it with --trust-code (Python: trust_code=True)"
