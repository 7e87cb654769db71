"""A server in a process of its own, for the live-server tests of Django Channels."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .options import Options
from .server.app import Server

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

__all__ = ["LiveServerProcess"]

#: Seconds until the deadline of the drain when the process is terminated: tests wait for it.
GRACE = 1.0


class LiveServerProcess(multiprocessing.Process):
    """Serves an ASGI application in a process of its own, until it is terminated.

    It is what `channels.testing.ChannelsLiveServerTestCase` expects as its `ProtocolServerProcess`, so that the
    tests of a Django project run on endwell. `terminate()` drains: the connections are closed in order, and the
    application gets its shutdown.

    Args:
        host: The address to listen on. `"localhost"` is 127.0.0.1 only.
        get_application: Returns the application. Called in the new process.
        kwargs: Fields of `Options`, which override :attr:`options`. Default: none.
        setup: Called in the new process before it serves.
        teardown: Called in the new process after it has served.
        port: The TCP port. Default: None, a free port.

    Example:
        ```python
        from endwell.testing import LiveServerProcess

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello"})

        def get_application():
            return app

        # In a project with Channels:
        #
        #     class ChatTests(ChannelsLiveServerTestCase):
        #         ProtocolServerProcess = LiveServerProcess
        if __name__ == "__main__":
            process = LiveServerProcess("localhost", get_application)
            process.start()
            process.ready.wait(10)
            print("port", process.port.value)
            process.terminate()
            process.join()
        ```
    """

    #: The options of the server; for a subclass. Default: ``Options()``.
    options: ClassVar[Options] = Options()

    def __init__(  # size: the parameters are those of daphne.testing.DaphneProcess
        self,
        host: str,
        get_application: Callable[[], Any],
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__()
        self._host = host
        self._get_application = get_application
        self._keywords = dict(kwargs or {})
        self._setup = setup
        self._teardown = teardown
        #: The port on which it listens, as ``port.value``, once :attr:`ready` is set.
        self.port: Synchronized[int] = multiprocessing.Value("i", port or 0)
        #: Set when it listens.
        self.ready: Event = multiprocessing.Event()
        #: The exception that has ended it, and its traceback as text.
        self.errors: Any = multiprocessing.Queue()

    def run(self) -> None:
        """Serve; called in the new process."""
        try:
            server = Server(self.options.replace(**self._keywords))
            server.mount("/", self._get_application())
            if self._setup is not None:
                self._setup()
            try:
                asyncio.run(self._serve(server))
            finally:
                if self._teardown is not None:
                    self._teardown()
        except BaseException as exc:
            traceback.print_exc()
            self.errors.put((exc, traceback.format_exc()))

    async def _serve(self, server: Server) -> None:
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
        # A name may have an IPv6 address that this machine does not have.
        host = "127.0.0.1" if self._host == "localhost" else self._host
        async with server.serving(host, self.port.value):
            self.port.value = server.port
            self.ready.set()
            await terminated.wait()
            await server.drain(deadline=GRACE, window=0, listen=False)
