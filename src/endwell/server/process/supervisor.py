"""The supervisor of several worker processes: starts, replaces, restarts and stops them.

All workers accept from the same sockets, which the supervisor opens and keeps open. So they share one accept
queue, and no connection in it is lost when a worker exits. With SO_REUSEPORT, each worker would have its own
queue, and the kernel would reset the connections in it.
"""
# size: starting, replacing, restarting and stopping workers change the same state.

from __future__ import annotations

import _socket
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext
from math import inf
from typing import TypeAlias

from ...aio.bind import format_address, unlink
from ...aio.syscalls import monotonic
from ...metrics.meter import settle
from ...metrics.table import Table, shared_file
from ...rooms.broker import Broker, Link
from ...rooms.options import RoomLimits
from ..drain.report import DrainReport, counted
from . import systemd
from .backoff import Backoff
from .balance import SLOTS, LoadTable
from .child import Worker
from .control import tell_listening
from .options import STARTUP_FAILED, ProcessOptions
from .poller import READ, WRITE, Poller
from .reload import Watcher
from .signals import Signals
from .worker import WorkerConfig, command

__all__ = ["Page", "Supervisor"]

logger = logging.getLogger("endwell.server")

#: A page that has its own port: host, port, and the listening sockets.
Page: TypeAlias = tuple[str, int, list[_socket.socket]]

#: Seconds that a worker has to exit in addition to the time limit that it reported when it was ready.
OVERTIME = 1.0
#: Seconds that a worker has to exit after a request to stop immediately.
IMMEDIATE_EXIT_TIME = 4.0

#: Names of changed files in a log line.
SHOWN_NAMES = 3


class Supervisor:
    """Keeps ``options.workers`` workers running until a signal stops it.

    The first SIGTERM or SIGINT makes all workers drain; the second one stops them immediately. SIGHUP starts
    new workers, and makes the old ones drain as soon as the new ones listen. SIGUSR1 makes all workers close a
    share of their connections (:meth:`Server.shed`).

    Raises:
        TypeError: ``workers`` is not an integer.
        ValueError: ``workers`` is not positive, this is not the main thread, or the program cannot be started
            again.
    """

    def __init__(self, options: ProcessOptions, limits: RoomLimits) -> None:
        count = options.workers
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"workers must be an integer, not {count!r}")
        if count < 1:
            raise ValueError(f"workers must be positive, not {count!r}")
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("workers need the main thread, because only it receives signals")
        self._count = count
        self._reload = options.reload
        self._command = command()
        self._loads = LoadTable()
        self._counts_file = shared_file(SLOTS)
        self._counts_name = secrets.token_hex(8)
        #: The counts of the workers that have exited.
        self._counts = Table(self._counts_file, 0)
        self._broker = Broker(limits.max_history, limits.max_known_rooms)
        self._socks: list[_socket.socket] = []
        self._pages: list[Page] = []
        self._passed = False
        self._workers: list[Worker] = []
        #: The generation of the workers that serve. The workers that a restart starts have the next one.
        self._generation = 0
        #: Whether all workers have been ready once.
        self._up = False
        self._restarting = self._restart_again = False
        self._stopping = False
        #: The exit status.
        self._status = 0
        #: The times at which the replacements of crashed workers start, by the number of the worker.
        self._due: dict[int, float] = {}
        self._backoffs = {number: Backoff() for number in range(1, count + 1)}
        self._reports: list[DrainReport] = []
        self._signals = Signals()
        self._poller = Poller()
        #: When :meth:`_handle_changes` has something to do, without an event.
        self._moment = -inf
        #: The links that the poller watches until they are writable, too.
        self._writing: set[Link] = set()

    def run(self, socks: list[_socket.socket], pages: list[Page], *, passed: bool) -> None:
        """Run the workers until a signal stops them; blocks.

        Args:
            socks: The listening sockets.
            pages: Those of the pages that have their own port.
            passed: Whether systemd passed them.

        Raises:
            SystemExit: A worker exited before all workers were ready. The status is 3 if the application could not
                start.
        """
        self._socks, self._pages, self._passed = socks, pages, passed
        try:
            watching = closing(Watcher(self._reload)) if self._reload else nullcontext()
            with watching as watcher, closing(self._poller), self._signals:
                self._poller.add(self._signals, self._signals)
                if watcher is not None:
                    self._poller.add(watcher, watcher)
                self._start_all(self._generation)
                while self._workers or not self._stopping:
                    self._run_once()
        finally:
            for worker in self._workers:  # empty, except after an exception in the supervisor
                worker.channel.close()
                worker.link.close()
            if not passed:
                unlink(socks)
            for sock in socks:
                sock.close()
            self._close_pages()
            self._loads.close()
            os.close(self._counts_file)
        if self._status:
            raise SystemExit(self._status)

    # -- events -----------------------------------------------------------------

    def _run_once(self) -> None:
        """Wait for events and deadlines, and handle them."""
        others = self._broker.serve(self._poller.wait, self._moment)
        for descriptor, _ in others:
            data = self._poller[descriptor]
            if isinstance(data, Worker):
                self._read_messages(data)
            elif isinstance(data, Watcher):
                self._files_changed(data.read())
            else:
                self._signals.read()
        # Otherwise, only a link has changed.
        if others or self._signals.numbers or monotonic() >= min(self._moment, self._broker.deadline):
            self._handle_changes()
            self._broker.tick()
            self._broker.flush()
        self._watch_links()

    def _handle_changes(self) -> None:
        """Handle signals, exits of workers and deadlines."""
        while self._signals:
            self._handle_signal(self._signals.take())
        for worker in [each for each in self._workers if each.process.poll() is not None]:
            self._worker_exited(worker)
        self._check_deadlines(monotonic())
        self._moment = min([*self._due.values(), *(worker.due for worker in self._workers)], default=inf)

    def _watch_links(self) -> None:
        """Wait for each link to become readable, and writable if something waits for the worker."""
        for link in self._broker.links:
            if link.ended:
                self._disconnect(link)
            elif link.wants_write != (link in self._writing):
                self._poller.change(link, READ | WRITE if link.wants_write else READ)
                self._writing ^= {link}

    def _disconnect(self, link: Link) -> None:
        if link in self._poller:
            self._poller.remove(link)
            self._writing.discard(link)
            self._broker.remove(link)

    def _read_messages(self, worker: Worker) -> None:
        for word, value in worker.channel.receive():
            if word == "ready":
                worker.begin(value)
                if not worker.leaving:
                    self._retire_predecessor(worker)
                    self._advance()
            elif word == "replace":
                # It asks again later, should it be refused.
                self._start_successor(worker, "has answered its maximum of requests")
            elif word == "ask":
                worker.channel.send("answer", self._asked(worker, value))
            elif word == "report":
                try:
                    self._reports.append(DrainReport.from_dict(value))
                except (KeyError, TypeError):
                    logger.warning("the drain report of %s is of another version: %r", worker, value)
        if worker.channel.ended:
            self._unregister(worker)

    def _unregister(self, worker: Worker) -> None:
        if worker.channel in self._poller:
            self._poller.remove(worker.channel)

    def _handle_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(at_once=self._stopping)
        elif number == signal.SIGHUP and not self._stopping:
            self._restart_again = True
            self._advance()
        elif number == signal.SIGUSR1 and not self._stopping:
            for worker in self._workers:
                if worker.ready and not worker.leaving:
                    worker.channel.send("shed")

    def _files_changed(self, names: list[str]) -> None:
        if names and not self._stopping:
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            logger.info("changed: %s%s", ", ".join(names[:SHOWN_NAMES]), more)
            self._restart_again = True
            self._advance()

    def _worker_exited(self, worker: Worker) -> None:
        """Handle the exit of a worker."""
        self._read_messages(worker)
        self._unregister(worker)
        self._loads.vacate(worker.load)
        self._counts.retire(worker.load, settle)
        worker.channel.close()
        self._disconnect(worker.link)
        worker.link.close()
        self._workers.remove(worker)
        if not worker.leaving and self._has_successor(worker):
            logger.error("%s %s; its successor starts already", worker, worker.exit_status())
        elif not worker.leaving:
            if not self._up and self._reload is None and worker.process.returncode == STARTUP_FAILED:
                self._status = STARTUP_FAILED
            self._worker_lost(
                worker.number, worker.generation, worker.started, f"{worker} {worker.exit_status()}"
            )
        elif worker.ready and worker.process.returncode:
            logger.error("%s %s while it was stopping", worker, worker.exit_status())
        self._advance()

    def _worker_lost(self, number: int, generation: int, started: float, what: str) -> None:
        """Handle a worker that exited without a request, or could not be started."""
        if not self._up and self._reload is not None:
            logger.error("%s before it was ready: waiting for a change of its files", what)
        elif not self._up:
            logger.critical("%s before all workers were ready: the program exits", what)
            self._status = self._status or 1
            self._stop(at_once=True)
        elif generation > self._generation:
            logger.error(
                "%s before all new workers were ready: the restart failed, the old workers go on", what
            )
            self._restarting = False
            for worker in self._workers:
                if worker.generation == generation:
                    worker.request_exit("now", IMMEDIATE_EXIT_TIME)
            systemd.notify("READY=1", "STATUS=the last restart failed, the old workers serve")
        else:
            backoff, now = self._backoffs[number], monotonic()
            wait = backoff.crashed(now - started)
            self._due[number] = now + wait
            row = f", {backoff.crashes} crashes in a row" if backoff.crashes > 1 else ""
            logger.error("%s%s; a new worker starts %s", what, row, f"in {wait:g} s" if wait else "now")

    def _check_deadlines(self, now: float) -> None:
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number, self._generation)
        for worker in self._workers:
            if worker.due <= now:
                if not worker.aborted:
                    what = "exit" if worker.leaving else "become ready"
                    logger.error("%s did not %s in time: it is killed", worker, what)
                worker.kill()

    # -- actions ------------------------------------------------------------------

    def _start_all(self, generation: int) -> None:
        for number in range(1, self._count + 1):
            if not self._start(number, generation):
                return

    def _start(self, number: int, generation: int) -> bool:
        try:
            worker = Worker(self._command, self._worker_config(number), generation)
        except OSError as error:  # out of memory, or the interpreter is being reinstalled
            self._worker_lost(number, generation, monotonic(), f"worker {number} cannot be started ({error})")
            return False
        self._workers.append(worker)
        self._poller.add(worker.channel, worker)
        self._poller.add(worker.link, worker.link)
        self._broker.add(worker.link)
        logger.debug("%s starts", worker)
        return True

    def _worker_config(self, number: int) -> WorkerConfig:
        slot = self._loads.occupy({worker.load for worker in self._workers})
        self._counts.prepare(slot)
        return WorkerConfig(
            supervisor=os.getpid(),
            number=number,
            count=self._count,
            load=slot,
            channel=-1,  # set by Worker
            loads=self._loads.file,
            counts=self._counts_file,
            counts_name=self._counts_name,
            sockets=[sock.fileno() for sock in self._socks],
            reserves=True,
            pages=[(host, port, [sock.fileno() for sock in socks]) for host, port, socks in self._pages],
        )

    def _advance(self) -> None:
        """Take the steps that are possible in the present state."""
        generation = self._generation + self._restarting
        ready = sum(
            each.ready and not each.leaving and each.generation == generation for each in self._workers
        )
        if ready == self._count and self._restarting:
            self._switch_generations()
        elif ready == self._count and not self._up:
            self._up = True
            for sock in self._socks:
                tell_listening(f"{format_address(sock.getsockname())}, with {counted(self._count, 'worker')}")
            systemd.notify("READY=1")
        if self._restart_again and not self._workers and not self._up:
            self._restart_again = False
            self._start_all(self._generation)
        elif self._restart_again and self._up and not self._restarting:
            self._restarting, self._restart_again = True, False
            logger.info("restarting: new workers start")
            systemd.reloading()
            self._start_all(self._generation + 1)
        if self._reports and not any(worker.leaving for worker in self._workers):
            logger.info("workers exited: %d; %s", len(self._reports), DrainReport.total(self._reports))
            self._reports = []

    def _asked(self, worker: Worker, what: object) -> str | None:
        """Do what a dashboard asks for. Returns None if it has begun, and otherwise why not."""
        if what == "drain":
            return self._start_successor(worker, "is to drain")
        if what != "restart":
            return "the supervisor does not know this action"
        if self._stopping:
            return "the server is stopping"
        self._restart_again = True
        self._advance()
        return None

    def _start_successor(self, worker: Worker, why: str) -> str | None:
        """Replace a worker as soon as its successor is ready. Returns None if it has begun, otherwise why not."""
        if self._stopping or worker.leaving:
            return "the worker is stopping"
        if not self._up or self._restarting:
            return "the workers are starting"
        if worker.succeeded:
            return "the worker is being replaced already"
        worker.succeeded = True
        logger.info("%s %s: a new worker starts", worker, why)
        self._start(worker.number, worker.generation)
        return None

    def _has_successor(self, worker: Worker) -> bool:
        return worker.succeeded and any(self._are_same(worker, other) for other in self._workers)

    def _retire_predecessor(self, worker: Worker) -> None:
        for other in self._workers:
            if other.succeeded and self._are_same(worker, other):
                other.request_exit("restart", other.deadline + OVERTIME)

    def _are_same(self, worker: Worker, other: Worker) -> bool:
        """Whether ``other`` serves in the place of ``worker``."""
        return (
            other is not worker
            and (other.number, other.generation) == (worker.number, worker.generation)
            and not other.leaving
        )

    def _switch_generations(self) -> None:
        """Stop all old workers at the same time, so that their clients reconnect to new ones."""
        logger.info("restarting: the new workers are ready, the old ones drain")
        old = self._generation
        self._generation, self._restarting = old + 1, False
        self._due.clear()
        self._drain("restart", lambda worker: worker.generation == old)
        systemd.notify("READY=1", "STATUS=")

    def _close_pages(self) -> None:
        for _, _, socks in self._pages:
            for sock in socks:
                sock.close()

    def _drain(self, word: str, chosen: Callable[[Worker], bool]) -> None:
        for worker in self._workers:
            if not worker.leaving and chosen(worker):
                worker.request_exit(word, worker.deadline + OVERTIME)

    def _stop(self, *, at_once: bool = False) -> None:
        if not self._stopping:
            logger.info("stopping: %s", counted(len(self._workers), "worker"))
            systemd.notify("STOPPING=1")
        self._stopping, self._restarting, self._restart_again = True, False, False
        self._due.clear()
        for sock in self._socks:
            # If the workers stop listening, another process can bind the port.
            if sock.family != socket.AF_UNIX:
                sock.close()
        self._close_pages()
        if at_once:
            for worker in self._workers:
                worker.request_exit("now", IMMEDIATE_EXIT_TIME)
        else:
            self._drain("leave" if self._passed else "stop", lambda worker: True)
