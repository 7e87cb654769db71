"""The corpus of the fuzzer against a running server: each input as first octets and after the handshake."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.fuzz.run import corpus
from tests.hostile.honest import attacked
from tests.raw import RawPeer


@pytest.mark.parametrize("legacy", [False, True], ids=["13", "legacy"])
@pytest.mark.parametrize("opened", [False, True], ids=["first", "after the opening"])
async def test_no_input_of_the_fuzzers_corpus_harms_a_running_server(opened, legacy, caplog):
    names = (
        ["frames", "connection", "inflate", "hixie", "hybi"]
        if opened
        else ["request", "response", "extensions"]
    )
    async with attacked(legacy=legacy, open_timeout=2.5) as both:
        for name in names:
            for data in corpus(name):
                with await RawPeer.connect_tcp(both.port) as peer:
                    if opened:
                        extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
                        await peer.write(peer.request()[:-2] + extension)
                        await peer.read_head()
                    with suppress(ConnectionError):
                        await peer.write(data[1:])  # without the octet that selects options
                        peer.fin()
                        while await peer.more():
                            pass
    assert not caplog.records
