"""The environment and the logging of ``endwell serve``, before it imports the application."""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import os
import ssl
import tomllib
from pathlib import Path
from typing import Any

from ..logs import JsonFormatter

__all__ = ["configure_logging", "load_environment", "server_context"]


def load_environment(path: str | None) -> None:
    """Set the environment variables of a file, except those that are set already.

    Raises ValueError if there is no such file, or python-dotenv is not installed.
    """
    if path is None:
        return
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path!r}")
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise ValueError("--env-file needs the package python-dotenv: pip install python-dotenv") from None
    load_dotenv(path)


def configure_logging(args: argparse.Namespace, handler: logging.Handler, who: str) -> None:
    """Configure logging by ``--log-config``, or log to ``handler``. ``who`` is a part of each line.

    Raises ValueError if the configuration cannot be used.
    """
    if args.log_config is not None:
        _apply_log_config(args.log_config)
        if args.log_level is not None:
            logging.getLogger("endwell").setLevel(args.log_level.upper())
        return
    if args.log_format == "json":
        handler.setFormatter(JsonFormatter())
    level = args.log_level or ("debug" if args.verbose else "info")
    logging.basicConfig(
        handlers=[handler],
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s",
    )


def _apply_log_config(path: str) -> None:
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path!r}")
    try:
        if path.endswith(".json"):
            _apply_dict(json.loads(Path(path).read_bytes()))
        elif path.endswith(".toml"):
            _apply_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        elif path.endswith((".yaml", ".yml")):
            _apply_dict(_read_yaml(path))
        else:
            logging.config.fileConfig(path, disable_existing_loggers=False)
    except (
        Exception
    ) as error:  # of the parsers, of fileConfig(), which evaluates texts, and of the handlers' classes
        cause = f": {error.__cause__}" if error.__cause__ else ""
        text = " ".join(f"{error}{cause}".split())  # errors of parsers have several lines
        raise ValueError(f"cannot use {path!r} as --log-config: {text}") from None


def _apply_dict(config: dict[str, Any]) -> None:
    # Python's default would disable endwell's loggers, which exist already.
    logging.config.dictConfig({"disable_existing_loggers": False, **config})


def _read_yaml(path: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError("it needs the package PyYAML: pip install pyyaml") from None
    return yaml.safe_load(Path(path).read_bytes())


def server_context(args: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context for the arguments; None without a certificate. Raises ValueError."""
    if args.certfile is None:
        for option in ("keyfile", "keyfile_password", "cafile", "cert_reqs", "ciphers"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option.replace('_', '-')} needs --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for name in (args.certfile, args.keyfile, args.cafile):
        if name is not None and not os.path.exists(name):  # OpenSSL does not say which one
            raise ValueError(f"there is no file {name!r}")
    names = [args.certfile, args.keyfile]
    try:
        # Without a password, OpenSSL would ask for one on the terminal, in each worker.
        context.load_cert_chain(args.certfile, args.keyfile, args.keyfile_password or _no_password)
        if args.cafile is not None:
            names = [args.cafile]
            context.load_verify_locations(args.cafile)
            context.verify_mode = ssl.CERT_REQUIRED
        if args.ciphers is not None:
            names = [args.ciphers]
            context.set_ciphers(args.ciphers)
    except OSError as error:  # ssl.SSLError, for a file with other contents, is an OSError, too
        what = " and ".join(repr(name) for name in names if name is not None)
        hint = ""
        if names[0] == args.certfile and isinstance(error, ssl.SSLError) and "PEM" in str(error):
            where = "the same file" if args.keyfile is None else "the other"
            hint = f"; a PEM file must have the certificate, and {where} its private key"
        raise ValueError(f"cannot use {what}: {error}{hint}") from None
    if args.cert_reqs is not None:
        if args.cert_reqs and args.cafile is None:
            raise ValueError("--cert-reqs needs --cafile")
        context.verify_mode = ssl.VerifyMode(args.cert_reqs)
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted: add --keyfile-password")
