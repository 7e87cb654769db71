"""The preamble of HAProxy's PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

__all__ = ["MINIMUM", "PreambleReader"]

#: The shortest preamble: "PROXY UNKNOWN" with CR LF. A version 2 has at least 16 bytes.
MINIMUM = 15
#: §2.1: "a 108-byte buffer is always enough to store all the line and a trailing zero".
_MAX_LINE = 107
#: Maximum bytes of a version 2 after its first 16: addresses and TLVs. Precedent: nginx reads at most 4096.
_MAX_LENGTH = 4096
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_HEADER = 16
_LOCAL, _PROXY = 0, 1
#: The size of the addresses for each family and protocol over streams.
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_SIZES = {_TCP4: 12, _TCP6: 36, _UNIX: 216}


class PreambleReader:
    """Reads the preamble of one connection. It never takes a byte of what follows.

    Read at most :meth:`wanted` bytes, pass them to :meth:`receive`, and repeat until :attr:`complete`. In version 1,
    look at the bytes before they are read (``MSG_PEEK``), and take only those up to the first LF.
    """

    def __init__(self) -> None:
        self._data = b""
        #: Whether the preamble is complete.
        self.complete = False
        #: The client's address in the format of the socket module. None: the peer is the client, as for a health
        #: check of the proxy.
        self.address: object = None

    def wanted(self) -> int:
        """How many bytes may belong to the preamble, at most."""
        size = len(self._data)
        if size < MINIMUM:
            return MINIMUM - size
        if self._data[:1] == b"P":
            return _MAX_LINE - size
        if size < _HEADER:
            return _HEADER - size
        return _HEADER + int.from_bytes(self._data[14:16]) - size

    def receive(self, data: bytes) -> int:
        """Add the next bytes. Returns how many of them belong to the preamble.

        Raises ValueError if they cannot be one.
        """
        count = len(data)
        if (self._data or data)[:1] == b"P" and (newline := data.find(b"\n")) >= 0:
            count = newline + 1
        self._data = start = self._data + data[:count]
        if start[:1] == b"P":
            if start[:6] != b"PROXY "[: len(start)]:
                raise ValueError("the preamble is not one of the PROXY protocol")
            if start.endswith(b"\n"):
                self._finish_line(start)
            elif len(start) >= _MAX_LINE:
                raise ValueError("the preamble is too long")
        elif start[: len(_SIGNATURE)] != _SIGNATURE[: len(start)]:
            raise ValueError("the preamble is not one of the PROXY protocol")
        elif len(start) >= _HEADER:
            self._check_header(start)
        return count

    def _finish_line(self, line: bytes) -> None:
        """Version 1: ``PROXY TCP4 source destination source-port destination-port``."""
        if not line.endswith(b"\r\n"):
            raise ValueError("the preamble does not end with CR LF")
        words = line[:-2].decode("latin-1").split(" ")
        self.complete = True
        # §2.1: for UNKNOWN "the receiver must ignore anything presented before the CRLF is found".
        if words[1] == "UNKNOWN":
            return
        if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
            raise ValueError("the preamble is malformed")
        parse = IPv4Address if words[1] == "TCP4" else IPv6Address
        try:
            source, _ = parse(words[2]), parse(words[3])
        except ValueError:  # its text quotes the bytes
            raise ValueError("the preamble is malformed") from None
        ports = [int(word) for word in words[4:] if word.isascii() and word.isdigit() and len(word) <= 5]
        if len(ports) != 2 or max(ports) > 65535 or "%" in words[2]:
            raise ValueError("the preamble is malformed")
        self.address = _address(source, ports[0])

    def _check_header(self, data: bytes) -> None:
        """Version 2: signature, version and command, family and protocol, length, addresses, TLVs."""
        command, family, length = data[12], data[13], int.from_bytes(data[14:16])
        if command >> 4 != 2 or command & 15 not in (_LOCAL, _PROXY):
            raise ValueError("the version or the command of the preamble is unknown")
        if length > _MAX_LENGTH:
            raise ValueError("the preamble is too long")
        if len(data) < _HEADER + length:
            return
        self.complete = True
        # §2.2: for LOCAL "the receiver must accept this connection as valid and must use the real connection
        # endpoints and discard the protocol block". The same holds for a family that is unspecified.
        if command & 15 == _LOCAL or family not in _SIZES:
            return
        if length < _SIZES[family]:
            raise ValueError("the preamble is shorter than its addresses")
        block = data[_HEADER:]
        if family == _TCP4:
            self.address = _address(IPv4Address(block[:4]), int.from_bytes(block[8:10]))
        elif family == _TCP6:
            self.address = _address(IPv6Address(block[:16]), int.from_bytes(block[32:34]))
        else:
            self.address = ""


def _address(host: IPv4Address | IPv6Address, port: int) -> tuple[object, ...]:
    return (str(host), port) if isinstance(host, IPv4Address) else (str(host), port, 0, 0)
