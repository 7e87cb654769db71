"""The metrics of a server, from the counts that it keeps anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from ..build import __version__
from ..ending import Ending
from ..metrics.families import DURATION_BUCKETS, FAMILIES, Family
from ..metrics.table import OTHER
from ..server.app import Server
from ..server.metering import own_samples
from .attributes import Attributes
from .telemetry import Telemetry

__all__ = ["ServerMetrics"]

#: Seconds that a reader in another thread waits for the event loop of the server.
PATIENCE = 5.0

#: The names of the labels that a semantic convention has.
_CONVENTIONS = {"route": "http.route", "status": "http.response.status_code"}
#: The units of what has neither seconds nor bytes in its name.
_UNITS = {
    "endwell_bus_deaf": "{process}",
    "endwell_bus_disconnections": "{disconnection}",
    "endwell_connections": "{connection}",
    "endwell_endings": "{connection}",
    "endwell_handshakes": "{request}",
    "endwell_processes": "{process}",
}


class ServerMetrics:
    """The instruments of one provider, for all its servers.

    They observe the counts of this process: each worker exports its own, and the collector adds them up.
    """

    def __init__(self, telemetry: Telemetry, provider: MeterProvider | None) -> None:
        self.telemetry = telemetry
        # Kept, so that no other provider gets its id() while a server has these instruments.
        self._provider = provider
        # Weak, because the provider lasts, and with it its instruments.
        self._servers: WeakSet[Server] = WeakSet()
        # The samples of the last reading that no instrument has observed yet, by name.
        self._fresh: dict[str, list[Observation]] = {}
        meter = get_meter("endwell", __version__, provider)
        for family in FAMILIES:
            if family.kind == "histogram":
                # The API has no histogram that is observed.
                for part in ("count", "sum"):
                    self._observe_part(meter, family, part)
            else:
                self._observe(meter, family)
        self._durations = meter.create_histogram(
            "endwell.connection_duration",
            "s",
            "How long the WebSockets that have ended were open.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )

    @classmethod
    def of(cls, telemetry: Telemetry, server: Server, provider: MeterProvider | None) -> ServerMetrics:
        """Return the instruments of ``provider``, which observe ``server``, too."""
        # A second instrument of the same name would be a mistake for the SDK.
        key = 0 if provider is None else id(provider)
        found = _instruments.get(key)
        if found is None:
            found = _instruments[key] = cls(telemetry, provider)
        found._servers.add(server)
        return found

    def ended(self, route: str | None, ending: Ending) -> None:
        """A connection has ended."""
        attributes = _attributes({"route": route or "", "cause": ending.cause.value})
        self._durations.record(ending.duration, attributes)

    def _observe(self, meter: Meter, family: Family) -> None:
        name, unit = _name(family), _unit(family)
        if family.kind == "counter":
            create: Callable[..., object] = meter.create_observable_counter
            sample = f"{family.name}_total"
        elif unit == "s":
            create, sample = meter.create_observable_gauge, family.name
        else:
            # Those of several processes can be added up.
            create, sample = meter.create_observable_up_down_counter, family.name
        create(name, [partial(self._observations, sample)], unit, family.text)

    def _observe_part(self, meter: Meter, family: Family, part: str) -> None:
        if family.name == "endwell_connection_duration_seconds":
            return  # recorded at each ending
        unit = "s" if part == "sum" else "{ping}"
        callback = partial(self._observations, f"{family.name}_{part}")
        text = f"{family.text} Their {'sum' if part == 'sum' else 'number'}."
        meter.create_observable_counter(f"{_name(family)}.{part}", [callback], unit, text)

    def _observations(self, sample: str, _options: CallbackOptions) -> Iterable[Observation]:
        if sample not in self._fresh:
            try:
                found = self._read()
            except Exception as exc:
                # A server stops, or its loop is blocked. The other instruments do not wait for it again.
                self.telemetry.failed(exc)
                found = {}
            self._fresh = {name: found.get(name, []) for name in _SAMPLES}
        return self._fresh.pop(sample, [])

    def _read(self) -> dict[str, list[Observation]]:
        """Return the sums over the servers."""
        sums: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for server in list(self._servers):
            for name, rows in _samples_of(server).items():
                values = sums.setdefault(name, {})
                for row in rows:
                    labels = tuple(row["labels"].items())
                    values[labels] = values.get(labels, 0) + row["value"]
        return {
            name: [Observation(value, _attributes(dict(labels))) for labels, value in values.items()]
            for name, values in sums.items()
        }


#: The instruments by the id() of their provider, which keeps them; under 0 those of the global one.
_instruments: WeakValueDictionary[int, ServerMetrics] = WeakValueDictionary()


def _samples_of(server: Server) -> dict[str, list[dict[str, Any]]]:
    """Read the counts in the event loop of the server, because connections open and end there."""
    portal = server._portal
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if portal is None or portal.loop is running:
        return own_samples(server._metering)
    return portal.run(_samples_soon, server, timeout=PATIENCE)


async def _samples_soon(server: Server) -> dict[str, list[dict[str, Any]]]:
    return own_samples(server._metering)


def _name(family: Family) -> str:
    return family.name.removesuffix("_seconds").replace("_", ".", 1)


def _unit(family: Family) -> str:
    for suffix, unit in ("_seconds", "s"), ("_bytes", "By"):
        if family.name.endswith(suffix):
            return unit
    return _UNITS.get(family.name, "{message}")


def _attributes(labels: dict[str, str]) -> Attributes:
    attributes: Attributes = {}
    for label, value in labels.items():
        if label == "status":
            # "other", if the table of the counts had no room for it: the attribute is a number, or absent.
            if value != OTHER:
                attributes[_CONVENTIONS[label]] = int(value)
        elif value:
            attributes[_CONVENTIONS.get(label, f"endwell.{label}")] = value
    return attributes


def _samples(family: Family) -> list[str]:
    if family.kind == "histogram":
        return [f"{family.name}_count", f"{family.name}_sum"]
    return [family.name + ("_total" if family.kind == "counter" else "")]


#: The names of the samples that are observed.
_SAMPLES = [name for family in FAMILIES for name in _samples(family)]
