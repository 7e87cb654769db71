"""The threads of websockets."""

from __future__ import annotations

from websockets.sync.client import connect

from .program import Exchange, run_blocking


def echo(exchange: Exchange) -> None:
    with connect(exchange.url) as ws:
        for message in exchange.first():
            ws.send(message)
        for reply in ws:
            ws.send(exchange.next(reply))
            if exchange.over:
                break


if __name__ == "__main__":
    run_blocking(echo)
