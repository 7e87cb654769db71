"""The text formats: which one is chosen, and that every value and label is well-formed."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from endwell.http import Headers
from endwell.metrics.exposition import OPEN_METRICS, PROMETHEUS, media_type, render
from endwell.metrics.families import ROUTE
from endwell.metrics.table import Block

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ((), PROMETHEUS),
        (("",), PROMETHEUS),
        (("*/*",), PROMETHEUS),
        ((PROMETHEUS_3,), OPEN_METRICS),
        (("text/plain", "Application/OpenMetrics-Text ; Q=1"), OPEN_METRICS),
        (("application/openmetrics-text",), OPEN_METRICS),
        (("application/openmetrics-text;q=0",), PROMETHEUS),
        (("application/openmetrics-text;q=0.000, */*",), PROMETHEUS),
        (("application/openmetrics-text;q=0.2,text/plain;q=0.3",), PROMETHEUS),
        (("application/openmetrics-text;q=nan",), PROMETHEUS),
        (("application/openmetrics-text;q=-1",), PROMETHEUS),
        (("application/openmetrics-textual",), PROMETHEUS),
        (('"application/openmetrics-text',), PROMETHEUS),
        ((";;,;q=,\xff",), PROMETHEUS),
    ],
)
def test_the_format_is_chosen_as_the_client_asks(accept, kind):
    headers = Headers([("Accept", line) for line in accept])
    assert media_type(headers.list_of("Accept")) == kind


HOSTILE = '/\\"}\n{a="b"} 1\n# EOF\r\0\x85\u2028é😀'


@pytest.mark.parametrize(("kind", "parse"), [(PROMETHEUS, parse_text), (OPEN_METRICS, parse_open_metrics)])
def test_a_label_can_be_any_text(kind, parse):
    text = render([Block(ROUTE, (HOSTILE,), [1.0] * 10)], kind)
    routes = {
        sample.labels["route"]
        for family in parse(text)
        for sample in family.samples
        if "route" in sample.labels
    }
    assert routes == {HOSTILE}


def test_large_counts_are_written_as_integers():
    text = render([Block(ROUTE, ("/",), [0.0, 0.0, 0.0, 2.0**60, *[0.5] * 6])], PROMETHEUS)
    assert f'endwell_handshakes_total{{outcome="accepted",status="101"}} {2**60}\n' in text
    assert 'endwell_unsent_bytes_total{route="/"} 0.5\n' in text
