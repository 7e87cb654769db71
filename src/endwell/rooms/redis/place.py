"""Where Redis is: the URL of the bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

__all__ = ["Place", "ask", "ask_all"]

SENTINEL_PORT = 26379


class Place(NamedTuple):
    """A Redis server, and the prefix of all keys and channels in it."""

    #: The address without the password, for texts.
    address: str
    prefix: str
    database: int
    connection_class: type[Any]
    arguments: dict[str, Any]
    #: The Sentinels that know which server is the primary of the service. Empty: the server is in the arguments.
    sentinels: tuple[Any, ...] = ()
    service: str = ""
    #: Some nodes of the cluster. Empty: it is none.
    nodes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read a URL.

        Raises:
            ValueError: It is not the URL of a Redis server, or has an option that redis-py does not know.
        """
        parts = urlsplit(url)
        if parts.scheme.endswith("+sentinel"):
            return cls._parse_sentinels(url)
        if parts.scheme.endswith("+cluster"):
            return cls._parse_cluster(url)
        options = dict(parse_qsl(parts.query))
        prefix = options.pop("prefix", "endwell:")
        scheme = {"valkey": "redis", "valkeys": "rediss"}.get(parts.scheme, parts.scheme)
        plain = parts._replace(scheme=scheme, query=urlencode(options)).geturl()
        where = parts.path if scheme == "unix" else parts.netloc.rpartition("@")[2]
        address = f"{parts.scheme}://{where}"
        if parts.fragment or (scheme == "unix" and (not parts.path or parts.netloc.rpartition("@")[2])):
            raise ValueError(f"the URL of the bus is wrong: {address} (unix:///path/of/the/socket)")
        if scheme != "unix" and not parts.path.removeprefix("/").isdecimal() and parts.path not in ("", "/"):
            raise ValueError(f"the URL of the bus is wrong: {address} must end with the number of a database")
        try:
            arguments: dict[str, Any] = dict(parse_url(plain))
            kind = arguments.pop("connection_class", Connection)
            arguments |= {
                "protocol": 2,
                "socket_timeout": None,
                "health_check_interval": 0,
                "retry": Retry(NoBackoff(), 0),
            }
            kind(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the URL of the bus is wrong: {address}: {error}") from None
        return cls(address, prefix, int(arguments.get("db", 0)), kind, arguments)

    @classmethod
    def _parse_sentinels(cls, url: str) -> Place:
        """Read ``redis+sentinel://user:password@host:26379,host:26379/service/0``.

        The options ``sentinel_username`` and ``sentinel_password`` are for the Sentinels, all others for Redis.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        scheme = parts.scheme.removesuffix("+sentinel")
        user, at, hosts = parts.netloc.rpartition("@")
        service, _, database = parts.path.removeprefix("/").partition("/")
        address = f"{parts.scheme}://{hosts}/{service}"
        if not service or not (database or "0").isdecimal():
            raise ValueError(
                f"the URL of the bus is wrong: {address} must end with /SERVICE or /SERVICE/DATABASE"
            )
        login = [options.pop(f"sentinel_{name}", None) for name in ("username", "password")]
        query = urlencode(options)
        # Any of them: the address of the primary takes its place.
        redis = cls.parse(f"{scheme}://{user}{at}{hosts.split(',')[0]}/{database or 0}?{query}")
        sentinels = []
        for host in hosts.split(","):
            each = cls.parse(f"{scheme}://{host if ':' in host else f'{host}:{SENTINEL_PORT}'}/0?{query}")
            each.arguments.update(username=login[0], password=login[1], db=0)
            sentinels.append(each)
        return redis._replace(address=address, sentinels=tuple(sentinels), service=service)

    @classmethod
    def _parse_cluster(cls, url: str) -> Place:
        """Read ``redis+cluster://user:password@host:6379,host:6379``."""
        parts = urlsplit(url)
        scheme = parts.scheme.removesuffix("+cluster")
        user, at, hosts = parts.netloc.rpartition("@")
        address = f"{parts.scheme}://{hosts}"
        if not all(hosts.split(",")):
            raise ValueError(f"the URL of the bus is wrong: {address}: a host is missing")
        if parts.path not in ("", "/", "/0"):
            raise ValueError(f"the URL of the bus is wrong: {address}: a cluster has only the database 0")
        nodes = [cls.parse(f"{scheme}://{user}{at}{host}/0?{parts.query}") for host in hosts.split(",")]
        if {*nodes[0].prefix} & {*"{}"}:
            raise ValueError(f"the URL of the bus is wrong: {address}: the prefix must have no braces")
        addresses = (each.arguments for each in nodes)
        where = tuple((each.get("host", "localhost"), each.get("port", 6379)) for each in addresses)
        return nodes[0]._replace(address=address, nodes=where)

    def key(self, room: str, kind: str) -> str:
        """The name of a key of a room. The braces make all keys of a room be in one slot of a cluster."""
        return f"{self.prefix}{{{room}}}:{kind}"

    def connection(self, address: tuple[str, int] | None = None) -> Any:
        """A connection that is not connected yet, to the server at ``address`` if it is not None."""
        where = {} if address is None else {"host": address[0], "port": address[1]}
        return self.connection_class(**self.arguments | where)


async def ask(connection: Any, *words: Any) -> Any:
    """The reply to a command, before :class:`~endwell.rooms.redis.replies.Replies` reads the connection."""
    (reply,) = await ask_all(connection, words)
    return reply


async def ask_all(connection: Any, *commands: Sequence[Any]) -> list[Any]:
    """The replies to commands that are sent together: they take one round trip. Raises the first error."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [await connection.read_response(disable_decoding=True) for _ in commands]
