"""Numbers as a reader wants them: few digits, units, no exponents in computer notation."""

from __future__ import annotations

import math

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits: ``0.0123``, ``−4.56 × 10⁻⁷``; – for none."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{abs(value):.{digits - 1}e}".partition("e")
    power, sign = int(exponent), "−" if value < 0 else ""
    if -3 <= power < 6:
        return sign + f"{float(f'{abs(value):.{digits}g}'):.{max(0, digits - 1 - power)}f}"
    return f"{sign}{mantissa} × 10{str(power).translate(_RAISED)}"


def short(value: float) -> str:
    """Write a number with at most two digits, for the ends of scales."""
    mantissa, cross, power = number(value, 2).partition(" × ")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return mantissa + cross + power


def percent(share: float) -> str:
    """Write a share 0…1 in percent with one decimal; – for none."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def seconds(value: float) -> str:
    """Write a duration: ``0.42 s``, ``3 min 12 s``, ``2 h 5 min``."""
    if value < 60:
        return f"{number(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def storage(n_bytes: int) -> str:
    """Write an amount of memory in MB or GB (powers of ten)."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
