"""The extension modules; everything else about the build is in pyproject.toml.

Each module is a .py file of the package with a .pxd file of the same name beside it. Cython compiles it unchanged,
with the types in the .pxd file. If the C compiler is missing or fails, the build continues without the extension
modules, and the file ``not-compiled`` in the package contains the reason. ENDWELL_PURE=1 compiles nothing;
ENDWELL_PURE=0 makes a failure of the compiler an error.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCES = Path(__file__).resolve().parent / "src"
#: The compiled modules, which run for each message or for each connection: those with a .pxd file beside the source,
#: and those in Cython syntax.
MODULES = sorted(
    {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for suffix in ("pxd", "pyx")
        for path in SOURCES.rglob(f"*.{suffix}")
    }
)

#: Compiler options; they follow those that Python was built with (gcc: -O3 -g -Wall). With -O1, without debug
#: information and without warnings about generated code, compiling takes a third of the CPU time. The instructions
#: for a message differ by less than 1 %.
FLAGS = ["-O1", "-g0", "-w"]

#: Masking is a loop over octets. With -O3 the compiler vectorizes it, which saves 5 % of the instructions for a
#: message of 1 KiB.
VECTORIZED = {"endwell.wire._payload": ["-O3", "-g0", "-w"]}

FALLBACK = """
endwell could not be compiled, so it is installed as plain Python. Everything works, but each message costs more CPU time.
To compile it, install a C compiler and the headers of Python (Debian: gcc, python3-dev), then install endwell again.
ENDWELL_PURE=0 turns this message into an error. `endwell --version` shows which build is installed.
"""

#: Read by endwell/build.py. It is written where the compiled modules would be, so an uninstallation removes it.
MARKER = "not-compiled"
#: Characters of the reason that are kept.
REASON = 120


def source(name: str) -> str:
    """The source file of a module: a .py file, except where a function needs Cython syntax (.pyx)."""
    path = f"src/{name.replace('.', '/')}"
    return f"{path}.pyx" if os.path.exists(f"{path}.pyx") else f"{path}.py"


def extensions() -> list[Extension]:
    """The modules to compile in this environment."""
    # PyPy's JIT compiler optimizes Python code, but not extension modules.
    if os.environ.get("ENDWELL_PURE") == "1" or sys.implementation.name != "cpython":
        return []
    # The compiled modules are not shown to be safe without the GIL: the import of one would turn the GIL on for
    # the whole process. On Windows the functions of sys/uio.h are missing.
    if sysconfig.get_config_var("Py_GIL_DISABLED") or sys.platform == "win32":
        return []
    from Cython.Build import cythonize

    return cythonize(
        [Extension(name, [source(name)], depends=["setup.py"]) for name in MODULES],
        build_dir="build",
        compiler_directives={
            "language_level": "3",
            # Only a .pxd file declares C types. Annotations have no effect, as in Python; otherwise `int`
            # would become a C type, and would reject subclasses.
            "annotation_typing": False,
            # Compiled functions keep their signature, defaults and docstring.
            "binding": True,
            # Connections and queues are never pickled, and the two methods for each class would be a tenth
            # of the generated code. A class whose objects can be pickled defines __reduce__.
            "auto_pickle": False,
        },
    )


class BuildExtensions(build_ext):
    """Compiles all modules or none, because a compiled module cannot use the C types of a plain one."""

    def finalize_options(self) -> None:
        """Use all processors, unless --parallel is given."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()
        self._compiled = 0

    def run(self) -> None:
        """Compile all modules; if one fails, remove the others, write the marker file, and print a message."""
        marker = self._marker()
        if os.path.exists(marker):
            os.remove(marker)
        self._remove_stale_modules()
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            if os.environ.get("ENDWELL_PURE") == "0":
                raise
            for extension in self.extensions:
                for path in {self.get_ext_fullpath(extension.name), self._beside_its_source(extension)}:
                    if os.path.exists(path):
                        os.remove(path)
            self.extensions = []
            os.makedirs(os.path.dirname(marker), exist_ok=True)
            with open(marker, "w", encoding="utf-8") as file:
                # A long one is the command line; what the compiler said is in the output of the installation.
                print(error if len(str(error)) < REASON else "the C compiler failed", file=file)
            print(FALLBACK, file=sys.stderr)

    def build_extension(self, ext: Extension) -> None:
        """Compile one module and print a line of progress."""
        if self.compiler.compiler_type == "unix":
            ext.extra_compile_args = VECTORIZED.get(ext.name, FLAGS)
        path = self.get_ext_fullpath(ext.name)
        before = os.path.exists(path) and os.path.getmtime(path)
        super().build_extension(ext)
        self._compiled += 1
        if os.path.getmtime(path) != before:
            print(f"[{self._compiled}/{len(self.extensions)}] compiled {ext.name}", flush=True)

    def _remove_stale_modules(self) -> None:
        """Remove the compiled form of each module that is not in MODULES any more.

        If the module is plain Python now, Python would import the old compiled form instead. If the module was
        renamed, the old one uses C types that have changed.
        """
        root = self._root()
        for folder, _, files in os.walk(os.path.join(root, "endwell")):
            package = os.path.relpath(folder, root).replace(os.sep, ".")
            for file in files:
                if file.endswith(".so") and f"{package}.{file.partition('.')[0]}" not in MODULES:
                    os.remove(os.path.join(folder, file))

    def _root(self) -> str:
        return "src" if self.inplace else self.build_lib

    def _marker(self) -> str:
        return os.path.join(self._root(), "endwell", MARKER)

    def _beside_its_source(self, extension: Extension) -> str:
        return os.path.join("src", self.get_ext_filename(extension.name))


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
