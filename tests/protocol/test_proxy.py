"""The dialogue of a client with a proxy, without I/O."""

from __future__ import annotations

import pytest

from endwell.codes import Retry
from endwell.errors import InvalidHandshake, ProxyError
from endwell.options import Options
from endwell.protocol.proxy import parse_proxy, tunnel_through

#: Bytes of the server that arrive together with the last ones of the proxy.
LATER = b"\x16\x03later"
NAME_REPLY = b"\x05\x00\x00\x03\x05relay\x00\x50"
ADDRESS_REPLY = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
ADDRESS_6_REPLY = b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x50"

#: Proxy, target, and the messages of the client and of the proxy in turn.
DIALOGUES = {
    "http": (
        "http://me:s3cret@x",
        "a.example",
        [
            b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nUser-Agent: ",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ],
    ),
    "http, 1xx, IPv6": (
        "http://x",
        "fd00::1",
        [
            b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 299 Fine\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    ),
    "socks4": ("socks4://me@x", "10.1.2.3", [b"\x04\x01\x01\xbb\x0a\x01\x02\x03me\0", b"\0\x5a" + bytes(6)]),
    "socks4a": (
        "socks4a://x",
        "a.example",
        [b"\x04\x01\x01\xbb\0\0\0\x01\0a.example\0", b"\0\x5a" + bytes(6)],
    ),
    "socks5h": (
        "socks5h://x",
        "a.example",
        [b"\x05\x01\x00", b"\x05\x00", b"\x05\x01\x00\x03\x09a.example\x01\xbb", NAME_REPLY],
    ),
    "socks5, credentials": (
        "socks5://me:s3cret@x",
        "10.1.2.3",
        [
            b"\x05\x02\x00\x02",
            b"\x05\x02",
            b"\x01\x02me\x06s3cret",
            b"\x01\x00",
            b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb",
            ADDRESS_REPLY,
        ],
    ),
    "socks5, IPv6": (
        "socks5://me:s3cret@x",
        "fd00::1",
        [
            b"\x05\x02\x00\x02",
            b"\x05\x00",
            b"\x05\x01\x00\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
            ADDRESS_6_REPLY,
        ],
    ),
}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("name", DIALOGUES)
def test_a_dialogue_is_the_same_however_its_bytes_are_split(name, size):
    proxy, host, messages = DIALOGUES[name]
    tunnel = tunnel_through(parse_proxy(proxy), host, 443, Options())
    for number in range(0, len(messages), 2):
        sent, answer = tunnel.output(), messages[number + 1]
        if proxy.startswith("http"):
            assert sent.startswith(messages[number])
            assert (b"\r\nProxy-Authorization: Basic bWU6czNjcmV0\r\n" in sent) == ("@" in proxy)
        else:
            assert sent == messages[number]
        assert not tunnel.done
        last = number + 2 == len(messages)
        data, taken = answer + (LATER if last else b""), 0
        while taken < len(answer):
            assert not tunnel.done
            count = tunnel.receive(data[taken : taken + size])
            assert count
            taken += count
        assert taken == len(answer)
        assert tunnel.done == last
    assert tunnel.output() == b""


@pytest.mark.parametrize(
    ("proxy", "answer", "error", "reply", "retry"),
    [
        ("http://x", b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", ProxyError, 403, Retry.LATER),
        ("socks4://x", b"\0\x5b", ProxyError, 91, Retry.LATER),
        ("socks4://x", b"\0\x5c", ProxyError, 92, Retry.NEVER),
        ("socks4://x", b"\0\xff", ProxyError, 255, Retry.LATER),
        ("socks4://x", b"\x04\x5a", InvalidHandshake, None, None),
        ("socks5://x", b"\x05\xff", ProxyError, 255, Retry.NEVER),
        ("socks5://a:b@x", b"\x05\xff", ProxyError, 255, Retry.NEVER),
        ("socks5://x", b"\x05\x02", InvalidHandshake, None, None),
        ("socks5://x", b"\x04\x00", InvalidHandshake, None, None),
        ("socks5://a:b@x", b"\x05\x02\x01\x07", ProxyError, 7, Retry.NEVER),
        *(
            ("socks5://x", b"\x05\x00\x05" + bytes((reply,)), ProxyError, reply, retry)
            for reply, retry in enumerate(
                [Retry.LATER, Retry.NEVER, *[Retry.LATER] * 4, *[Retry.NEVER] * 2, Retry.LATER], 1
            )
        ),
        ("socks5://x", b"\x05\x00\x04\x00", InvalidHandshake, None, None),
        ("socks5://x", b"\x05\x00\x05\x00\x00\x02\x00", InvalidHandshake, None, None),
    ],
)
def test_a_refusal_is_known_from_the_byte_that_decides(proxy, answer, error, reply, retry):
    tunnel = tunnel_through(parse_proxy(proxy), "10.1.2.3", 443, Options())
    for number in range(len(answer) - 1):
        assert tunnel.receive(answer[number : number + 1]) == 1
    with pytest.raises(error) as caught:
        tunnel.receive(answer[-1:])
    if error is ProxyError:
        assert (caught.value.reply, caught.value.retry) == (reply, retry)
    if proxy.startswith("http"):
        assert caught.value.response.body == b"no"


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 9\r\n"])
def test_the_end_of_tcp_ends_a_refusal_of_http(fields):
    tunnel = tunnel_through(parse_proxy("http://x"), "a", 443, Options())
    tunnel.receive(b"HTTP/1.1 502 Bad Gateway\r\n" + fields + b"\r\nno w")
    assert tunnel.refusal().response.body == b"no w"
    with pytest.raises(ProxyError, match="HTTP 502 Bad Gateway") as caught:
        tunnel.eof()
    assert caught.value.response.body == b"no w"


@pytest.mark.parametrize("proxy", ["http://x", "socks5://x"])
def test_the_end_of_tcp_completes_nothing_else(proxy):
    tunnel = tunnel_through(parse_proxy(proxy), "a", 443, Options())
    tunnel.eof()
    assert tunnel.refusal() is None
    assert not tunnel.done


def test_a_host_that_the_protocol_cannot_express_is_refused_here():
    with pytest.raises(ProxyError, match="SOCKS4 has no IPv6 addresses") as caught:
        tunnel_through(parse_proxy("socks4a://x"), "fd00::1", 443, Options())
    assert caught.value.retry is Retry.NEVER
    tunnel = tunnel_through(parse_proxy("socks5h://x"), "a" * 256, 443, Options())
    with pytest.raises(ProxyError, match="more than 255 characters") as caught:
        tunnel.receive(b"\x05\x00")
    assert caught.value.retry is Retry.NEVER


def test_a_proxy_has_the_default_port_of_its_scheme():
    ports = {"http": 80, "https": 443, "socks4": 1080, "socks5h": 1080}
    assert {scheme: parse_proxy(f"{scheme}://x").port for scheme in ports} == ports


@pytest.mark.parametrize(
    "url",
    [
        "ftp://u:s3cret@x",
        "http://u:s3cret@x/path",
        "http://u:s3cret@",
        "http://u:s3cret@x:0",
        "http://u:s3cret@x:s3cret",
        "socks4://u:s3cret@x",
        "socks5://s3cret@x",
        "s3cret\n",
    ],
)
def test_a_malformed_url_is_refused_and_not_quoted(url):
    with pytest.raises(ValueError, match=r"^the proxy of the test ") as caught:
        parse_proxy(url, "the proxy of the test")
    assert "s3cret" not in str(caught.value)


def test_the_text_of_a_proxy_has_no_credentials():
    proxy = parse_proxy("u:s3cret@[::1]:7", scheme="socks5")
    assert str(proxy) == "socks5://[::1]:7"
    assert "s3cret" not in repr(proxy)
    assert not proxy.secure
    assert [parse_proxy(f"{scheme}://x").resolves for scheme in ("http", "socks5h", "socks5")] == [
        True,
        True,
        False,
    ]
