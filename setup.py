"""The extension modules; everything else about the build is in pyproject.toml.

Each is a .py file of the package, compiled by Cython as it stands, with types from
the .pxd beside it if there is one. Without a C compiler the build goes on without
them. ENDWELL_PURE=1 does not try to compile; ENDWELL_PURE=0 fails where that fails.
"""

import os
import sys

from setuptools import Extension, setup

#: The modules on the path of a message and of a connection's life: this list is the only one.
MODULES = [
    "endwell.http",
    "endwell.wire._payload",
    "endwell.wire.head",
    "endwell.wire.frames",
    "endwell.wire.deflate",
    "endwell.wire.codec",
    "endwell.protocol.deadline",
    "endwell.protocol.inbox",
    "endwell.protocol.outbox",
    "endwell.protocol.keepalive",
    "endwell.protocol.connection",
    "endwell.protocol.handshake",
    "endwell.aio._syscalls",
    "endwell.aio.commons",
    "endwell.aio.tls",
    "endwell.aio.stream",
    "endwell.aio.awaiting",
    "endwell.aio._sending",
    "endwell.aio.websocket",
    "endwell.aio.listen",
    "endwell.aio.broadcast",
    "endwell.sync._locks",
    "endwell.sync.waiting",
    "endwell.sync.crossing",
    "endwell.sync.bridge",
    "endwell.sync.websocket",
]


def source(name: str) -> str:
    """The file of a module; a .pyx only where one function has a form that Python cannot say."""
    path = f"src/{name.replace('.', '/')}"
    return f"{path}.pyx" if os.path.exists(f"{path}.pyx") else f"{path}.py"


def extensions() -> list[Extension]:
    """What to compile here, if anything."""
    # PyPy's compiler sees through Python code, but not through an extension module.
    if os.environ.get("ENDWELL_PURE") == "1" or sys.implementation.name != "cpython":
        return []
    from Cython.Build import cythonize

    modules = cythonize(
        [Extension(name, [source(name)]) for name in MODULES],
        build_dir="build",
        compiler_directives={
            "language_level": "3",
            # A type is what a .pxd says. An annotation stays a remark, as it is in
            # Python: with it, `int` would turn into a C type, or refuse a subclass.
            "annotation_typing": False,
            # Compiled functions keep their signature, defaults and docstring.
            "binding": True,
        },
    )
    for module in modules:
        module.optional = os.environ.get("ENDWELL_PURE") != "0"
    return modules


setup(ext_modules=extensions())
