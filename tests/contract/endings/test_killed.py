"""What a server reports when the process of the client is killed: the kernel ends TCP, with RST if data was
unread.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import endwell
from tests.cli.process import PATIENCE, python

#: A client that reads the handshake response, and one message if told to; then it waits to be killed.
CLIENT = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(
    b"GET / HTTP/1.1\\r\\nHost: 127.0.0.1:%s\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n" % sys.argv[1].encode()
)
read = b""
while not read.endswith(b"hello" if sys.argv[2] == "reads" else b"\\r\\n\\r\\n"):
    read += sock.recv(1)
# What is there now stays unread.
while sys.argv[2] == "does not read" and not sock.recv(1, socket.MSG_PEEK):
    pass
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("client", "cause"),
    [("reads", endwell.Cause.PEER_VANISHED), ("does not read", endwell.Cause.CONNECTION_RESET)],
)
async def test_a_killed_client_with_unread_data_is_a_reset(client, cause):
    server = endwell.Server()
    told = asyncio.get_running_loop().create_future()
    server.on_close(lambda ws, ending: told.set_result(ending))

    @server.websocket("/")
    async def greet(ws: endwell.WebSocket) -> None:
        await ws.send("hello")
        await ws.closed

    async with asyncio.timeout(PATIENCE), server.serving():
        with python("-S", "-c", CLIENT, str(server.port), client) as process:
            assert await asyncio.to_thread(process.stdout.readline) == "there\n"
            process.kill()
            ending = await told
    assert ending.cause is cause
    assert ending.code == 1006


def test_the_docs_name_the_causes_of_a_killed_client():
    page = Path(__file__).parents[3] / "docs" / "explanation" / "endings.md"
    (paragraph,) = (each for each in page.read_text(encoding="utf-8").split("\n\n") if "SIGKILL" in each)
    for cause in (endwell.Cause.PEER_VANISHED, endwell.Cause.CONNECTION_RESET):
        assert f"`{cause.name}`" in paragraph
