"""A network namespace for one server, and the link to it, which can be cut without FIN or RST. Needs root."""

from __future__ import annotations

import subprocess
from itertools import count

__all__ = ["Cable"]

#: An unassigned hardware address.
NOBODY = "02:00:00:00:00:99"
_NUMBERS = count(1)


class Cable:
    """The link to a namespace. While it is cut, packets are lost silently in both directions."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.address, self._own = f"10.78.{number}.1", f"10.78.{number}.2"
        self._near, self._far = f"endwell{number}a", f"endwell{number}b"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "echo; exec sleep 7200"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            raise SystemExit("this fault needs a network namespace, and so root (CAP_SYS_ADMIN)")
        #: Runs a command on the other side.
        self.prefix = ("nsenter", "--target", str(self._holder.pid), "--net", "--")
        peer = ("peer", "name", self._far, "netns", str(self._holder.pid))
        _run("ip", "link", "add", "name", self._near, "type", "veth", *peer)
        for prefix, device, address in self._ends():
            _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", device)
            _run(*prefix, "ip", "link", "set", "dev", device, "up")

    def _ends(self) -> list[tuple[tuple[str, ...], str, str]]:
        return [((), self._near, self._own), (self.prefix, self._far, self.address)]

    def cut(self) -> None:
        """Lose every packet."""
        (_, near, own), (prefix, far, other) = self._ends()
        for inside, device, address in (((), near, other), (prefix, far, own)):
            arguments = ("lladdr", NOBODY, "dev", device, "nud", "permanent")
            _run(*inside, "ip", "neighbour", "replace", address, *arguments)

    def heal(self) -> None:
        """Stop losing packets."""
        (_, near, own), (prefix, far, other) = self._ends()
        for inside, device, address in (((), near, other), (prefix, far, own)):
            _run(*inside, "ip", "neighbour", "delete", address, "dev", device)

    def close(self) -> None:
        """End the namespace, and the link with it."""
        self._holder.kill()
        self._holder.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
