"""The WebSocket functions of libcurl, which do no deflate and let the application answer a Close."""

from __future__ import annotations

import os
import select
import sys
from io import BytesIO

import pycurl


class Socket:
    """libcurl as a blocking socket of messages."""

    def __init__(self, url: str) -> None:
        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.CONNECT_ONLY, 2)
        self.curl.perform()
        self.fd = self.curl.getinfo(pycurl.ACTIVESOCKET)

    def send(self, data: bytes, flags: int) -> None:
        sent = 0
        while sent < len(data):
            try:
                # The rest of a frame is sent by further calls with the same arguments.
                sent += self.curl.ws_send(data[sent:], flags)
            except BlockingIOError:
                select.select([], [self.fd], [], 5)

    def receive(self) -> tuple[bytes, int]:
        """The payload and flags of a frame."""
        payload = BytesIO()
        while True:
            try:
                data, meta = self.curl.ws_recv(65536)
            except BlockingIOError:
                select.select([self.fd], [], [], 5)
                continue
            payload.write(data)
            if not meta.bytesleft:
                return payload.getvalue(), meta.flags


def client(url: str, scenario: str) -> None:
    ws = Socket(url)
    if scenario == "client-closes":
        messages = [
            (b"hello", pycurl.WS_TEXT),
            (("é" * 2**19).encode(), pycurl.WS_TEXT),
            (os.urandom(2**20), pycurl.WS_BINARY),
        ]
        for message, flags in messages:
            ws.send(message, flags)
            assert ws.receive()[0] == message
        ws.curl.ws_close(3001, "bye")
        told = ws.receive()
    else:
        ws.send(scenario.encode(), pycurl.WS_TEXT)
        try:
            told = ws.receive()
        except pycurl.error as exc:
            print(exc)
            return
        if told[1] & pycurl.WS_CLOSE:
            ws.curl.ws_close(int.from_bytes(told[0][:2], "big"), told[0][2:].decode())
    print(int.from_bytes(told[0][:2], "big"), repr(told[0][2:].decode()))
    ws.curl.close()


match sys.argv[1:]:
    case ["version"]:
        print(pycurl.version.partition("libcurl/")[2])
    case ["client", url, scenario]:
        client(url, scenario)
