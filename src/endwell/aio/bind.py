"""Listening sockets on TCP addresses and Unix paths."""

from __future__ import annotations

import _socket
import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterable
from typing import Any

from ..wire.authority import join_authority
from .loop import check_system, memory_of

__all__ = [
    "MAX_LOGGED",
    "adopt",
    "bind",
    "check_port",
    "check_unix_path",
    "format_address",
    "format_peer",
    "unlink",
]

#: Connections that the kernel queues until they are accepted.
BACKLOG = 1024


def bind(
    host: str | Iterable[str] | None,
    port: int,
    unix_path: str | os.PathLike[str] | None,
    unix_mode: int | None = None,
    shared: bool = False,
) -> list[_socket.socket]:
    """Return listening sockets on every address of ``host`` (None: all interfaces), or on a Unix path.

    Port 0 lets the system choose a port, the same one for all addresses. With ``shared``, other processes of the
    same user may listen on the port, too. Raises OSError.
    """
    check_system()
    if unix_path is not None:
        return [_bind_unix(check_unix_path(unix_path), unix_mode)]
    if unix_mode is not None:
        raise ValueError("unix_mode is given without unix_path")
    check_port(port)
    hosts = _hosts(host)
    if (memory := _memory()) is not None:
        return memory.listen(hosts, port)  # type: ignore[no-any-return]
    socks: list[_socket.socket] = []
    name: str | None = None
    try:
        for name in hosts:
            for family, kind, proto, _, address in socket.getaddrinfo(
                name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                chosen = socks[0].getsockname()[1] if port == 0 and socks else address[1]
                sock = _socket.socket(family, kind, proto)
                socks.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                # An accepted connection inherits it.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address[0], chosen, *address[2:]))
                sock.listen(BACKLOG)
                sock.setblocking(False)
    except BaseException as exc:
        if isinstance(exc, OSError):
            exc.filename = format_address((name or "*", port))  # names the address in the error message
        for sock in socks:
            sock.close()
        raise
    return socks


def check_port(port: int, lowest: int = 0) -> None:
    """Raise TypeError or ValueError for what is no port. getaddrinfo() takes a name of a service, and 70000 as 4464."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be a number, not {port!r}")
    if not lowest <= port <= 65535:
        raise ValueError(f"port must be between {lowest} and 65535, not {port}")


def check_unix_path(unix_path: str | os.PathLike[str]) -> str:
    """Return the path of a Unix socket. Raises TypeError and ValueError for what is none."""
    if not isinstance(unix_path, str | os.PathLike):
        raise TypeError(f"unix_path must be a path or None, not {unix_path!r}")
    path = os.fsdecode(unix_path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"unix_path must be a path in the encoding of the system, not {path!r}") from None
    # unix(7): a name that begins with a null byte is abstract. In a path, the kernel would ignore what follows it.
    if not path or ("\0" in path and not path.startswith("\0")):
        raise ValueError(f"unix_path must be a path or an abstract name, not {path!r}")
    return path


def _memory() -> Any:
    try:
        return memory_of(asyncio.get_running_loop())
    except RuntimeError:
        return None


def _hosts(host: str | Iterable[str] | None) -> list[str | None]:
    if host is None or isinstance(host, str):
        return [host]
    hosts: list[str | None] = [] if isinstance(host, bytes) or not isinstance(host, Iterable) else [*host]
    if not hosts or not all(isinstance(each, str) for each in hosts):
        raise TypeError(f"host must be a str, several of them, or None for all addresses, not {host!r}")
    return hosts


class _UnixSocket(_socket.socket):
    """A listening Unix socket that knows the file that it created."""

    path: str
    file: tuple[int, int] | None = None

    def unlink(self) -> None:
        """Remove the file, unless another process has replaced it."""
        # Before close(): until then the kernel cannot give the inode to another file.
        try:
            if self.file is not None and _identity(os.lstat(self.path)) == self.file:
                os.unlink(self.path)
        except OSError:
            pass
        self.file = None


def _bind_unix(path: str, mode: int | None) -> _socket.socket:
    if mode is not None and (isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777):
        raise ValueError(f"unix_mode must be permission bits such as 0o660, not {mode!r}")
    # unix(7): a name that begins with a null byte is abstract, and has no file.
    abstract = path.startswith("\0")
    if abstract and mode is not None:
        raise ValueError("an abstract Unix socket has no file, so it has no unix_mode")
    if (memory := _memory()) is not None:
        return memory.listen_unix(path)  # type: ignore[no-any-return]
    if not abstract:
        _remove_dead(path)
    # unix(7): sun_path has 108 bytes, and the last of a path is null. The socket module has no errno for it.
    if len(os.fsencode(path)) > 107:
        raise OSError(errno.ENAMETOOLONG, "the path of a Unix socket has at most 107 bytes", path)
    sock = _UnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if not abstract:
            sock.path = os.path.abspath(path)
            sock.file = _identity(os.lstat(path))
            if mode is not None:
                # Before listen(): until then every connect() is refused, whatever the mode is.
                os.chmod(path, mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException as exc:
        if isinstance(exc, OSError):
            exc.filename = path
        sock.unlink()
        sock.close()
        raise
    return sock


def _remove_dead(path: str) -> None:
    """Remove the socket file of a dead process. Raise OSError for any other file that is there."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _in_use(path, "it is a link to a file that does not exist") from None
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise _in_use(path, "it is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            # Another process that starts at this moment may have replaced it already.
            if _identity(os.stat(path)) == _identity(before):
                os.unlink(path)
            return
        except OSError:
            pass  # for example EAGAIN: a process listens, and its queue is full
    raise _in_use(path, "another process listens on it")


def _in_use(path: str, why: str) -> OSError:
    return OSError(errno.EADDRINUSE, f"Address already in use: {why}", path)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def adopt(descriptor: int) -> list[_socket.socket]:
    """Return the listening socket with a descriptor that another process has opened. Raises OSError."""
    sock = _socket.socket(fileno=descriptor)
    try:
        _prepare(sock)
    except BaseException:
        sock.detach()  # it belongs to the other process
        raise
    return [sock]


def _prepare(sock: _socket.socket) -> None:
    if sock.type != socket.SOCK_STREAM:
        raise OSError(errno.ENOTSOCK, "it is not a stream socket")
    if sock.family != socket.AF_UNIX:
        # As on the sockets that endwell opens. A connection inherits it from the listening socket.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.listen(BACKLOG)
    sock.setblocking(False)
    # Child processes do not inherit it, unless it is passed to them.
    os.set_inheritable(sock.fileno(), False)


def format_address(address: Any) -> str:
    """Return the address of a socket as in a URL; for a Unix socket its path, or ``@`` and its name."""
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    if isinstance(address, str):
        # Precedent: ss(8) and systemd write abstract names like this.
        return f"@{address[1:]}" if address.startswith("\0") else address
    return join_authority(*address[:2])


#: Maximum characters of a path or an origin in a log line.
MAX_LOGGED = 200


def format_peer(address: Any) -> str:
    """Return a peer's address. A client chooses the name of its Unix socket, so that name is not shown."""
    return format_address(address) if isinstance(address, tuple) else "a Unix socket"


def unlink(socks: Iterable[_socket.socket]) -> None:
    """Remove the files of the Unix sockets that this process has bound."""
    for sock in socks:
        if isinstance(sock, _UnixSocket):
            sock.unlink()
