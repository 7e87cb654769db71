"""The arguments of ``endwell connect`` that become arguments of :class:`~endwell.connect`."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

from ..client.connect import ConnectKeywords
from ..options import LEGACY, Options
from .address import refuse_together, unix_path

__all__ = [
    "add_connection",
    "add_options",
    "certificate_hint",
    "check_tls",
    "connection_keywords",
    "keywords_of",
    "number",
]

#: Options of a client whose argument has a special form.
_SPECIAL = frozenset(("compression", "recorder", "subprotocols", "version"))
#: The results of a verification that --cafile can change: X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
#: _DEPTH_ZERO_SELF_SIGNED_CERT, _SELF_SIGNED_CERT_IN_CHAIN, _UNABLE_TO_GET_ISSUER_CERT_LOCALLY and
#: _UNABLE_TO_VERIFY_LEAF_SIGNATURE (x509_vfy.h of OpenSSL). Others are an expired certificate or a wrong name.
_UNTRUSTED = frozenset((2, 18, 19, 20, 21))


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how to reach the server."""
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="add a header field to the request (repeatable)",
    )
    parser.add_argument(
        "--unix",
        metavar="PATH",
        help="connect to this Unix socket instead of TCP; the URL only determines the request; @NAME: an abstract "
        "socket",
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        help="connect through this proxy: http://, https://, socks5h://, socks5://, socks4a:// or socks4://; "
        "'none': connect directly (default: the proxy of the environment or the system)",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument(
        "--cafile", metavar="FILE", help="trust the certificates in this PEM file, instead of the system's"
    )
    tls.add_argument("--cert", metavar="FILE", help="PEM file with the certificate chain of this client")
    tls.add_argument("--key", metavar="FILE", help="PEM file with the private key, unless --cert contains it")
    tls.add_argument("-k", "--insecure", action="store_true", help="accept any certificate")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="offer a subprotocol (repeatable, in order of preference)",
    )
    add_connection(parser)
    limits = parser.add_argument_group(
        "limits and protocol", "the fields of endwell.Options; 'none' disables a limit"
    )
    for option in _numbers():
        limits.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=number(float if option.metadata["unit"] == "s" else int),
            default=argparse.SUPPRESS,
            metavar={"s": "SECONDS", "bytes": "BYTES"}.get(option.metadata["unit"], "N"),
            help=f"default: {_format_default(option.default)}. {option.metadata['consequence'].replace('%', '%%')}",
        )
    limits.add_argument(
        "--recorder",
        metavar="DIRECTORY",
        help="write an abnormal ending, with the last cues of its connection, to a file in this directory; endwell "
        "replay reads it",
    )
    limits.add_argument("--no-compression", action="store_true", help="do not offer permessage-deflate")
    limits.add_argument(
        "--protocol",
        choices=("13", *LEGACY),
        default="13",
        help="the version of the WebSocket protocol (default: %(default)s)",
    )


def keywords_of(args: argparse.Namespace) -> ConnectKeywords:
    """Convert ``args`` to keyword arguments of :class:`~endwell.connect`. Raises ValueError if one is wrong."""
    keywords: dict[str, Any] = {
        option.name: getattr(args, option.name) for option in _numbers() if hasattr(args, option.name)
    }
    if args.no_compression:
        keywords["compression"] = None
    if args.recorder is not None:
        keywords["recorder"] = args.recorder
    return {
        **connection_keywords(args),
        "subprotocols": args.subprotocol,
        "version": args.protocol,
        **keywords,  # type: ignore[typeddict-item]
    }


def connection_keywords(args: argparse.Namespace) -> ConnectKeywords:
    """Convert the arguments of :func:`add_connection`. Raises ValueError if one is wrong."""
    keywords: dict[str, Any] = {} if args.proxy is None else _proxy(args)
    return {
        "ssl": _context(args),
        "additional_headers": [_field(text) for text in args.header],
        "unix_path": unix_path(args.unix),
        **keywords,  # type: ignore[typeddict-item]
    }


def _proxy(args: argparse.Namespace) -> dict[str, Any]:
    if args.proxy == "none":
        return {"proxy": None}
    context = None
    if args.proxy.lower().startswith("https:") and args.cafile:
        # --cafile is about both; --cert and --insecure are about the server.
        context = ssl.create_default_context(cafile=args.cafile)
    return {"proxy": args.proxy, "proxy_ssl": context}


def _numbers() -> list[Field[Any]]:
    return [
        option
        for option in fields(Options)
        if option.metadata["used_by"] != "server" and option.name not in _SPECIAL
    ]


def number(kind: type[int | float]) -> Callable[[str], float | None]:
    """A type for argparse: a number, or the word "none" for None."""

    def parse(text: str) -> float | None:
        try:
            return None if text == "none" else kind(text)
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} or 'none', not {text!r}") from None

    return parse


def _format_default(default: object) -> str:
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"header {text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def check_tls(args: argparse.Namespace, url: str) -> None:
    """Raise ValueError if the options of TLS are given and ``url`` is without TLS."""
    secure_proxy = (args.proxy or "").lower().startswith("https:")
    if (args.cert or args.insecure or (args.cafile and not secure_proxy)) and url.lower().startswith("ws:"):
        raise ValueError("--cafile, --cert and --insecure need a wss:// URL")


def certificate_hint(exc: BaseException | None) -> str:
    """Return the options that accept the server's certificate; empty if ``exc`` is not about it."""
    if not isinstance(exc, ssl.SSLCertVerificationError):
        return ""
    trust = "--cafile FILE trusts the certificates in a file, " if exc.verify_code in _UNTRUSTED else ""
    return f"{trust}-k accepts any certificate"


def _context(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.key and not args.cert:
        raise ValueError("--key needs --cert")
    refuse_together(args, "--insecure", ("--cafile",))
    if not (args.cafile or args.cert or args.insecure):
        return None
    name = args.cafile
    try:
        context = ssl.create_default_context(cafile=args.cafile)
        if args.cert:
            name = args.cert
            context.load_cert_chain(args.cert, args.key)
    except OSError as error:  # ssl.SSLError, for a file with other contents, is an OSError, too
        raise ValueError(f"cannot use {name!r}: {error}") from None
    if args.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
