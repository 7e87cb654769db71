"""The threading implementation of websockets."""

from __future__ import annotations

import os
import sys
import threading

import websockets
from websockets.sync.client import connect
from websockets.sync.server import serve


def tell(ws: object) -> None:
    print(ws.close_code, repr(ws.close_reason), flush=True)


def client(url: str, scenario: str) -> None:
    with connect(url) as ws:
        if scenario == "client-closes":
            for message in ["hello", "é" * 2**19, os.urandom(2**20)]:
                ws.send(message)
                assert ws.recv() == message
            ws.close(3001, "bye")
        else:
            ws.send(scenario)
            try:
                ws.recv()
            except websockets.ConnectionClosed:
                pass
    tell(ws)


def server() -> None:
    def handler(ws: object) -> None:
        try:
            for message in ws:
                if message == "server-closes":
                    ws.close(4001, "srv")
                elif message == "server-stops":
                    threading.Thread(target=listener.shutdown).start()
                else:
                    ws.send(message)
        except websockets.ConnectionClosed:
            pass
        tell(ws)

    with serve(handler, "127.0.0.1", 0) as listener:
        print(listener.socket.getsockname()[1], flush=True)
        listener.serve_forever()


match sys.argv[1:]:
    case ["version"]:
        print(websockets.__version__)
    case ["client", url, scenario]:
        client(url, scenario)
    case ["server"]:
        server()
