"""The events of an HTTP request, for applications of the tests."""

from __future__ import annotations

__all__ = ["body", "body_of", "start"]


async def body_of(receive):
    content = b""
    while True:
        event = await receive()
        assert event["type"] == "http.request"
        content += event["body"]
        if not event["more_body"]:
            return content


def start(status=200, *headers, **more):
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(octets=b"", more=False):
    return {"type": "http.response.body", "body": octets, "more_body": more}
