"""Methods as ``--methods`` takes them, and what to write in place of one that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from voxplain.attribution.method import Method
from voxplain.attribution.methods import PRESETS, describe_settings, method_of, setting_text
from voxplain.attribution.question import Question
from voxplain.attribution.shapley import Shapley
from voxplain.errors import MethodError

_MOST_SAMPLES = 1 << 20


@contextmanager
def named(label: str, methods: Mapping[str, Method], question: Question) -> Iterator[None]:
    """Say which method a fault is about, and what ``--methods`` to write instead.

    Parameters
    ----------
    label
        Of the method at work.
    methods
        All that were asked for, by their label.
    question
        What is asked of it.

    Raises
    ------
    MethodError
        In place of one that is raised inside.
    """
    try:
        yield
    except MethodError as error:
        raise MethodError(
            f"method {label}: {error}; {_advice(label, methods, question)}"
        ) from error


def text_of(label: str, method: Method) -> str | None:
    """Return the words of ``--methods`` that give a method; None if no words do (an image)."""
    if PRESETS.get(label) == method:
        return label
    defaults = describe_settings(type(method))
    parts = [method.name]
    for name, default in defaults.items():
        text = setting_text(getattr(method, name))
        if text != default:
            parts.append(f"{name}={text}")
    text = ":".join(parts)
    try:
        again = method_of(method.name, dict(part.split("=", 1) for part in parts[1:]))
    except MethodError:
        return None
    return text if again == method else None


def _advice(label: str, methods: Mapping[str, Method], question: Question) -> str:
    changed = _with_enough_samples(methods[label], question)
    with_it, without = [], []
    for name, method in methods.items():
        words = text_of(name, method) or name
        if name != label:
            without.append(words)
            with_it.append(words)
        elif changed is not None:
            with_it.append(text_of("", changed) or name)
    advice = f"leave it out: --methods {','.join(without)}" if without else "take another method"
    if changed is not None:
        advice = f"write --methods {','.join(with_it)}, or {advice}"
    return advice


def _with_enough_samples(method: Method, question: Question) -> Method | None:
    """Double the samples of a game until they suffice; None if it is not for want of them."""
    if not isinstance(method, Shapley):
        return None
    samples = 2 * method.samples
    while samples <= _MOST_SAMPLES:
        found = replace(method, samples=samples, max_samples=max(samples, method.max_samples))
        try:
            found.passes(question)
        except MethodError:
            samples *= 2
        else:
            return found
    return None
