"""What permessage-deflate costs and saves: window bits x memory level x level, for JSON messages.

    python benchmarks/deflate.py                              # the grid, with Python's own zlib
    python benchmarks/deflate.py --library zlib zlib-ng isal  # the installed libraries side by side

A document is like those of the load generator: repeated names, short numbers, some
words. Each row is one connection on which many documents are sent one after the other. The
defaults of ``endwell.Deflate`` were chosen by this; ``docs/explanation/performance.md`` says how.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {"zlib": "zlib", "zlib-ng": "zlib_ng.zlib_ng", "isal": "isal.isal_zlib"}
ISAL_LEVELS = 3
WORDS = ["amber", "basalt", "cobalt", "delta", "ember", "fjord", "garnet", "harbor"]
TAIL = b"\x00\x00\xff\xff"
DOCUMENTS = 64
REPEATS = 5
#: The number of compressors that exist at once to measure the memory of one.
ALIVE = 200


@dataclass(frozen=True)
class Setting:
    """One set of parameters; ``fresh`` is without context takeover."""

    library: str
    bits: int
    mem_level: int
    level: int
    fresh: bool


def documents(size: int) -> list[bytes]:
    """The same in every run."""
    rng = random.Random(size)
    return [_document(rng, size) for _ in range(DOCUMENTS)]


def _document(rng: random.Random, size: int) -> bytes:
    text = f'{{"event":"order.updated","id":{rng.randrange(2**30)},"customer":"{rng.choice(WORDS)}","items":['
    while True:
        item = (
            f'{{"sku":"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{rng.randrange(10000):04}",'
            f'"quantity":{rng.randint(1, 9)},"price":{rng.randrange(500)}.{rng.randrange(100):02},'
            f'"stock":{rng.choice(["true", "true", "true", "false"])}}},'
        )
        if len(text) + len(item) + 32 > size:
            break
        text += item
    text += 'null],"note":"'
    return (text + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size - len(text) - 2)) + '"}').encode()


def _compressor(module: ModuleType, setting: Setting) -> Any:
    return module.compressobj(setting.level, module.DEFLATED, -setting.bits, setting.mem_level)


def _microseconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        gc.collect()
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return 1e6 * best / DOCUMENTS


def measure(setting: Setting, messages: list[bytes]) -> tuple[float, float, float, float]:
    """Bytes and microseconds to deflate and inflate a message, and KiB that both use between two."""
    module = importlib.import_module(MODULES[setting.library])
    deflated: list[bytes] = []

    def deflate() -> None:
        deflated.clear()
        compressor = None if setting.fresh else _compressor(module, setting)
        for message in messages:
            one = compressor or _compressor(module, setting)
            deflated.append((one.compress(message) + one.flush(module.Z_SYNC_FLUSH))[: -len(TAIL)])

    def inflate() -> None:
        inflater = None if setting.fresh else module.decompressobj(-setting.bits)
        for message, payload in zip(messages, deflated, strict=True):
            one = inflater or module.decompressobj(-setting.bits)
            if one.decompress(payload + TAIL, 2**20) != message:
                raise AssertionError(f"{setting} does not give back what it was given")

    cost = _microseconds(deflate)
    size = sum(map(len, deflated)) / len(deflated)
    back = _microseconds(inflate)
    return size, cost, back, 0.0 if setting.fresh else _kibibytes(module, setting, messages)


def _kibibytes(module: ModuleType, setting: Setting, messages: list[bytes]) -> float:
    """Measured by the growth of a separate process with a fresh heap."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        before, alive = _resident(), []
        for _ in range(ALIVE):
            one, other = _compressor(module, setting), module.decompressobj(-setting.bits)
            for message in messages[: max(4, 2**17 // len(messages[0]))]:  # fills the widest window, and more
                other.decompress(one.compress(message) + one.flush(module.Z_SYNC_FLUSH), 2**20)
            alive.append((one, other))
        os.write(writing, str((_resident() - before) / 1024 / ALIVE).encode())
        os._exit(0)
    os.wait()
    answer = os.read(reading, 100)
    os.close(reading)
    os.close(writing)
    return float(answer)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _table(size: int, settings: Iterable[Setting]) -> None:
    messages = documents(size)
    print(f"\n{size} bytes of JSON:\n")
    print(
        "| library | window bits | memory level | level | takeover | bytes | deflate µs | inflate µs | KiB |"
    )
    print("|---|---:|---:|---:|---|---:|---:|---:|---:|")
    for setting in settings:
        size_, cost, back, memory = measure(setting, messages)
        kept = "no" if setting.fresh else "yes"
        print(
            f"| {setting.library} | {setting.bits} | {setting.mem_level} | {setting.level} | {kept} "
            f"| {size_:.0f} | {cost:.1f} | {back:.1f} | {memory or '':{'.0f' if memory else ''}} |",
            flush=True,
        )


def main() -> None:
    """Measure every requested combination."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", nargs="+", choices=MODULES, default=["zlib"])
    parser.add_argument("--size", nargs="+", type=int, default=[200, 1024, 16384])
    parser.add_argument("--bits", nargs="+", type=int, default=[10, 11, 12, 13, 15])
    parser.add_argument("--mem-level", nargs="+", type=int, default=[1, 3, 5, 8])
    parser.add_argument("--level", nargs="+", type=int, default=[1, 3, 6, 9])
    parser.add_argument("--fresh", action="store_true", help="without context takeover, too")
    args = parser.parse_args()
    for size in args.size:
        grid = product(args.library, args.bits, args.mem_level, args.level, [False, True][: 1 + args.fresh])
        _table(size, (Setting(*each) for each in grid if each[0] != "isal" or each[3] <= ISAL_LEVELS))


if __name__ == "__main__":
    main()
