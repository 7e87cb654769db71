"""Who may see the dashboard."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ...aio.cancellation import is_cancelled
from ...errors import RequestRefused
from ...http import Request
from ...matching import parse_host
from ...options import Options
from ...wire.authority import parse_authority
from ..router import blocks, name_of

__all__ = ["Access", "Authorize", "is_local"]

logger = logging.getLogger("endwell.server")

#: The argument of :meth:`Server.dashboard`.
Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]

#: The fields that proxies add. A proxy on this machine makes each of its clients a peer on loopback.
_FORWARDING = frozenset(
    (
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-url",
        "x-envoy-external-address",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
    )
)


def is_local(request: Request, options: Options) -> bool:
    """Whether a request comes from a program on this machine, as far as it can be known.

    With the options ``proxy_headers`` and ``proxy_protocol`` it cannot: then a proxy says what the address is.
    """
    if options.proxy_headers or options.proxy_protocol:
        return False
    address = request.remote_address
    if not isinstance(address, tuple) or not _is_loopback(address[0]):
        return False
    for name, _ in request.headers:
        lower = name.lower()
        if lower in _FORWARDING or lower.startswith("x-forwarded-"):
            return False
    # A page whose name resolves to a loopback address (DNS rebinding) is of the same origin as the dashboard, but
    # the Host has its name.
    hosts = request.headers.get_all("Host")
    if len(hosts) != 1:
        return False
    try:
        host, _ = parse_authority(hosts[0])
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host)


def _is_loopback(text: str) -> bool:
    address = parse_host(text)
    return address is not None and address.is_loopback


class Access:
    """Decides about each request, by ``authorize`` if there is one.

    Args:
        authorize: The argument of :meth:`Server.dashboard`.
        in_thread: Calls a function that blocks.
        options: Those of the server.
    """

    def __init__(
        self,
        authorize: Authorize | None,
        in_thread: Callable[..., Awaitable[Any]],
        options: Callable[[], Options],
    ) -> None:
        self._authorize = authorize
        self._in_thread = in_thread
        self._options = options
        self._blocks = authorize is not None and blocks(authorize)
        #: The types of the exceptions that were logged. Any client can cause them.
        self._logged: set[type] = set()

    async def allows(self, request: Request) -> bool:
        """Whether the client may see the dashboard, and act.

        Raises:
            RequestRefused: ``authorize`` has raised it.
        """
        if self._authorize is None:
            return is_local(request, self._options())
        try:
            answer: object = await self._in_thread(self._authorize, request) if self._blocks else None
            if not self._blocks:
                answer = self._authorize(request)
            if inspect.isawaitable(answer):
                answer = await answer
            return self._checked(answer)
        except RequestRefused:
            raise
        except asyncio.CancelledError as exc:
            if is_cancelled():
                raise
            # This task was not cancelled: authorize has awaited something that was. If the exception were raised, it
            # would end the task that asks again while a feed is open, and the feed would stay open.
            return self._failed(exc)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            # Includes sys.exit(): in the task that asks again while a feed is open, it would end the event loop.
            return self._failed(exc)

    def _failed(self, exc: BaseException) -> bool:
        if type(exc) not in self._logged:
            self._logged.add(type(exc))
            logger.error("authorize of the dashboard failed, so the client is refused", exc_info=exc)
        return False

    def _checked(self, answer: object) -> bool:
        if not isinstance(answer, bool):
            # An object that is always true, such as a response, would let everybody in.
            name = name_of(self._authorize) if self._authorize else ""
            raise TypeError(f"{name} must return True or False, not {type(answer).__name__}")
        return answer
