"""The text formats of Prometheus and OpenMetrics, and the same values as a dict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from .families import BUS, FAMILIES, HANDSHAKES, PROCESS, ROUTE, Family
from .meter import OPENED
from .table import Block

__all__ = ["OPEN_METRICS", "PROMETHEUS", "as_dict", "media_type", "render"]

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
#: The labels of the handshakes that were accepted, which each route counts.
_ACCEPTED = "accepted", "101"
#: The cells whose value for all processes is the largest one, by block: a remaining time, and a lag.
_LONGEST = {(PROCESS, 3), (BUS, 3)}


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


def media_type(accepted: Iterable[str]) -> str:
    """Choose the format. ``accepted`` are the elements of the field ``Accept``.

    OpenMetrics is chosen only if it is named, because other clients than Prometheus do not know it.
    """
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for element in accepted:
        kind, *parameters = (part.strip().lower() for part in element.split(";"))
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(parameters))
    open_metrics, plain = weights.values()
    return OPEN_METRICS if open_metrics > 0.0 and open_metrics >= plain else PROMETHEUS


def _weight(parameters: Iterable[str]) -> float:
    """The weight of RFC 9110 §12.4.2: "a missing weight" is 1. A malformed one is 0: another format is safer."""
    for parameter in parameters:
        if parameter.startswith("q="):
            found = _WEIGHT.fullmatch(parameter)
            return 0.0 if found is None else float(found[1])
    return 1.0


def render(blocks: Iterable[Block], kind: str) -> str:
    """The page with the counts of all processes, in the format ``kind``."""
    merged, lines = _merged(blocks), []
    for family in FAMILIES:
        samples = list(_samples(family, merged))
        # In Prometheus' own format, the name of a counter has its suffix here, too.
        name = family.name + ("_total" if family.kind == "counter" and kind == PROMETHEUS else "")
        if samples:
            lines += [f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}"]
            lines += map(_line, samples)
    if kind == OPEN_METRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def as_dict(blocks: Iterable[Block]) -> dict[str, list[dict[str, object]]]:
    """The samples by their names."""
    merged = _merged(blocks)
    found: dict[str, list[dict[str, object]]] = {}
    for family in FAMILIES:
        for sample in _samples(family, merged):
            row = {"labels": sample.labels, "value": sample.value}
            found.setdefault(sample.name, []).append(row)
    return found


def _merged(blocks: Iterable[Block]) -> dict[int, dict[tuple[str, ...], list[float]]]:
    merged: dict[int, dict[tuple[str, ...], list[float]]] = {}
    for number, labels, values in blocks:
        rows = merged.setdefault(number, {})
        before = rows.get(labels)
        if before is None:
            rows[labels] = list(values)
            continue
        for cell, value in enumerate(values):
            before[cell] = max(before[cell], value) if (number, cell) in _LONGEST else before[cell] + value
    opened = sum((values[OPENED] for values in merged.get(ROUTE, {}).values()), 0.0)
    merged.setdefault(HANDSHAKES, {})[_ACCEPTED] = [opened]
    return merged


def _samples(family: Family, merged: dict[int, dict[tuple[str, ...], list[float]]]) -> Iterator[Sample]:
    for labels, values in sorted(merged.get(family.block, {}).items()):
        named = dict(zip(family.labels, labels, strict=False))
        if family.kind == "histogram":
            yield from _histogram(family, named, values)
            continue
        name = family.name + ("_total" if family.kind == "counter" else "")
        if family.split:
            for cell, each in zip(family.cells, family.split, strict=True):
                yield Sample(name, {**named, family.labels[-1]: each}, values[cell])
        else:
            yield Sample(name, named, values[family.cells[0]])


def _histogram(family: Family, labels: dict[str, str], values: list[float]) -> Iterator[Sample]:
    total, *counts = values
    below = list(accumulate(counts))
    for limit, count in zip(family.buckets, below, strict=False):
        yield Sample(f"{family.name}_bucket", {**labels, "le": repr(limit)}, count)
    count = below[-1]
    yield Sample(f"{family.name}_bucket", {**labels, "le": "+Inf"}, count)
    yield Sample(f"{family.name}_count", labels, count)
    yield Sample(f"{family.name}_sum", labels, total)


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
    value = int(sample.value) if sample.value.is_integer() else sample.value
    return f"{sample.name}{{{labels}}} {value!r}" if labels else f"{sample.name} {value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
