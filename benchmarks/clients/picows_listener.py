"""The native interface of picows: callbacks."""

from __future__ import annotations

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .program import Exchange, run


class Echo(WSListener):
    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def on_ws_connected(self, transport: WSTransport) -> None:
        for message in self.exchange.first():
            transport.send(WSMsgType.BINARY, message)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            # Not compared as a memoryview, which CPython compares octet by octet.
            transport.send(WSMsgType.BINARY, self.exchange.next(frame.get_payload_as_bytes()))
        if self.exchange.over:
            transport.disconnect()


async def echo(exchange: Exchange) -> None:
    transport, _ = await ws_connect(lambda: Echo(exchange), exchange.url)
    await transport.wait_disconnected()


if __name__ == "__main__":
    run(echo)
