"""Two network namespaces and a link between them that can be cut without FIN or RST."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

__all__ = ["Network"]

CLONE_NEWNET = 0x40000000
#: Unassigned hardware addresses.
NOBODY = "02:00:00:00:00:99"


class Network:
    """The network of a server and of a client. While it is cut, packets are lost silently."""

    address = "10.77.0.1"

    def __init__(self) -> None:
        self._holders = [_holder(), _holder()]
        self.server, self.client = (holder.pid for holder in self._holders)
        #: Command prefixes that run a command on that side.
        self.server_prefix, self.client_prefix = _inside(self.server), _inside(self.client)
        self._ends = (
            (self.server, "cable0", self.address, "10.77.0.2"),
            (self.client, "cable1", "10.77.0.2", self.address),
        )

    def __enter__(self) -> Self:
        peer = ("peer", "name", "cable1", "netns", str(self.client))
        _ip(self.server, "link", "add", "name", "cable0", "type", "veth", *peer)
        for pid, device, address, _ in self._ends:
            _ip(pid, "address", "add", f"{address}/24", "dev", device)
            _ip(pid, "link", "set", "dev", device, "up")
            _ip(pid, "link", "set", "dev", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for holder in self._holders:
            holder.kill()
            holder.wait()

    def cut(self) -> None:
        """Lose every packet in both directions."""
        # Packets go to an unassigned hardware address, which works without a packet filter.
        for pid, device, _, other in self._ends:
            _ip(pid, "neighbour", "replace", other, "lladdr", NOBODY, "dev", device, "nud", "permanent")

    def heal(self) -> None:
        """Stop losing packets."""
        for pid, device, _, other in self._ends:
            _ip(pid, "neighbour", "delete", other, "dev", device)

    @contextmanager
    def inside(self, pid: int) -> Iterator[None]:
        """Sockets that this thread creates in the block belong to that side."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            _enter(other)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(own)
            os.close(other)


def _holder() -> subprocess.Popen[bytes]:
    """A process with its own network namespace, which keeps the namespace alive."""
    command = ["unshare", "--net", "--", "sh", "-c", "echo; exec sleep 600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    if not process.stdout.readline():
        _, error = process.communicate()
        pytest.fail(f"this test needs a network namespace, and so root (CAP_SYS_ADMIN): {error.decode()}")
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    return process


def _inside(pid: int) -> tuple[str, ...]:
    return ("nsenter", "--target", str(pid), "--net", "--")


def _ip(pid: int, *command: str) -> None:
    done = subprocess.run([*_inside(pid), "ip", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"ip {' '.join(command)}: {done.stderr}")


def _enter(namespace: int) -> None:
    # os.setns exists since Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
