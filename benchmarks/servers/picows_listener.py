"""The native interface of picows: callbacks, payloads without a copy."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from .program import Ports, run

DATA = (WSMsgType.TEXT, WSMsgType.BINARY)
everybody: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in DATA:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class BroadcastReport(Echo):
    def on_ws_connected(self, transport: WSTransport) -> None:
        everybody.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        everybody.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in DATA:
            payload = frame.get_payload_as_bytes()
            for each in everybody:
                each.send(frame.msg_type, payload)
        else:
            super().on_ws_frame(transport, frame)


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo() if request.path == b"/echo" else BroadcastReport()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> Ports:
    server = await ws_create_server(listener, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]


if __name__ == "__main__":
    run(serving)
