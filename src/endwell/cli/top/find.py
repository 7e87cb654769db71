"""Where the dashboard of a process can be reached: its listening sockets, from /proc."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from ...wire.authority import join_authority

__all__ = ["Place", "places_of"]

#: The state of a listening TCP socket in /proc/net/tcp, and the flag of a listening Unix socket in /proc/net/unix.
_LISTEN = "0A"
_ACCEPTS = 0x10000


class Place(NamedTuple):
    """An address on which a process listens."""

    #: ``host:port``; for a Unix socket, what the request says.
    authority: str
    #: The path of a Unix socket; None for TCP.
    unix_path: str | None = None

    def __str__(self) -> str:
        return self.authority if self.unix_path is None else f"the Unix socket {self.unix_path!r}"


def places_of(process: int, proc: Path = Path("/proc")) -> list[Place]:
    """The addresses on which a process listens, those of loopback first.

    Raises:
        ValueError: They cannot be known; the text says why.
    """
    if not proc.joinpath("self").exists():
        raise ValueError(
            "a process ID needs /proc, which this system does not have: give the URL of the server"
        )
    folder = proc / str(process)
    try:
        inodes = set(_sockets(folder / "fd"))
    except FileNotFoundError:
        raise ValueError(f"there is no process {process}") from None
    except PermissionError:
        raise ValueError(
            f"the sockets of process {process} cannot be read: run the command as the user of the process"
        ) from None
    found = [
        *(place for name in ("tcp", "tcp6") for place in _tcp(_read(folder / "net" / name), inodes)),
        *_unix(_read(folder / "net" / "unix"), inodes, folder),
    ]
    if not found:
        raise ValueError(f"process {process} does not listen on any address")
    return list(dict.fromkeys(found))


def _sockets(folder: Path) -> Iterator[str]:
    """The inodes of the sockets of a process."""
    for name in os.listdir(folder):
        try:
            target = os.readlink(folder / name)
        except FileNotFoundError:  # it was closed meanwhile
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _read(file: Path) -> list[list[str]]:
    try:
        text = file.read_text(errors="surrogateescape")
    except OSError:  # IPv6 may be missing
        return []
    return [line.split() for line in text.splitlines()[1:]]


def _tcp(rows: list[list[str]], inodes: set[str]) -> list[Place]:
    places = []
    for row in rows:
        if len(row) > 9 and row[3] == _LISTEN and row[9] in inodes:
            host, _, port = row[1].partition(":")
            address = _address(host)
            # A socket for all addresses is reached by loopback, too.
            if address.is_unspecified:
                address = ip_address("127.0.0.1" if address.version == 4 else "::1")
            places.append((not address.is_loopback, Place(join_authority(str(address), int(port, 16)))))
    return [place for _, place in sorted(places)]


def _address(text: str) -> IPv4Address | IPv6Address:
    """An address of /proc/net/tcp: 32-bit words in hexadecimal, each in the byte order of the machine."""
    octets = bytes.fromhex(text)
    words = [octets[at : at + 4] for at in range(0, len(octets), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    packed = b"".join(words)
    if len(packed) == 4:
        return IPv4Address(socket.inet_ntop(socket.AF_INET, packed))
    return IPv6Address(packed)


def _unix(rows: list[list[str]], inodes: set[str], folder: Path) -> list[Place]:
    places = []
    for row in rows:
        if len(row) > 7 and int(row[3], 16) & _ACCEPTS and row[6] in inodes:
            path = " ".join(row[7:])
            places.append(
                Place("localhost", f"\0{path[1:]}" if path.startswith("@") else _full(path, folder))
            )
    return places


def _full(path: str, folder: Path) -> str:
    """The path of a Unix socket, which may be relative to the current folder of the process."""
    if path.startswith("/"):
        return path
    with suppress(OSError):  # it has ended meanwhile
        path = os.path.join(os.readlink(folder / "cwd"), path)
    return path
