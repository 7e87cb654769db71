"""Where NATS is: the URL of the bus."""

from __future__ import annotations

import re
import ssl
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Place"]

PORT = 4222
_PREFIX = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
#: Maximum length of the name of a room that is readable in its subject. NATS limits a line of its protocol to
#: 4096 bytes.
MAX_READABLE = 255


class Place(NamedTuple):
    """The NATS servers, and the prefix of all subjects."""

    #: The addresses without the password, for texts.
    address: str
    prefix: str
    #: The arguments of :meth:`nats.aio.client.Client.connect`.
    arguments: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read a URL.

        Raises:
            ValueError: It is not the URL of a NATS server, or has an unknown option.
        """
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        address = f"{parts.scheme}://{hosts}"

        def wrong(why: str) -> ValueError:
            return ValueError(f"the URL of the bus is wrong: {address}: {why}")

        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        prefix = options.pop("prefix", "endwell")
        if not _PREFIX.fullmatch(prefix):
            raise wrong("prefix must have letters, digits, '_' and '-', in parts that a '.' separates")
        if parts.fragment or parts.path not in ("", "/"):
            raise wrong("it must end after the host, except for ?prefix=NAME and other options")
        try:
            servers = [_server(each) for each in hosts.split(",")]
        except ValueError as error:
            raise wrong(str(error)) from None
        arguments: dict[str, Any] = {"servers": servers}
        if at:
            name, colon, password = user.partition(":")
            secret = (
                {"user": unquote(name), "password": unquote(password)} if colon else {"token": unquote(name)}
            )
            arguments |= secret
        authorities = options.pop("ssl_ca_certs", None)
        if parts.scheme == "tls" or authorities is not None:
            try:
                arguments["tls"] = ssl.create_default_context(cafile=authorities)
            except (OSError, ssl.SSLError) as error:
                raise wrong(f"ssl_ca_certs: {error}") from None
        if (credentials := options.pop("credentials", None)) is not None:
            arguments["user_credentials"] = credentials
        if options:
            raise wrong(f"unknown options: {', '.join(sorted(options))}")
        return cls(address, prefix, arguments)

    def subject(self, *tokens: str) -> str:
        """A subject."""
        return ".".join((self.prefix, *tokens))

    def room(self, name: str) -> str:
        """The subject of the publications of a room."""
        octets = name.encode()
        if len(octets) <= MAX_READABLE:
            return self.subject("room", urlsafe_b64encode(octets).decode().rstrip("="))
        return self.subject("room", "sha256", sha256(octets).hexdigest())


def _server(text: str) -> str:
    parts = urlsplit(f"nats://{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"nats://{host}:{parts.port or PORT}"
