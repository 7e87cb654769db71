"""Makes this process look like Python on Windows, as far as an import and a first call can see it.

A test's child process imports this before endwell. The modules of the standard library that check the
platform are imported first.
"""

import asyncio
import concurrent.futures
import concurrent.futures.thread
import functools
import logging.handlers
import mmap
import multiprocessing
import os
import platform
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest.mock
import webbrowser

import httptools
import uvicorn

LOADED = (
    asyncio,
    concurrent.futures.thread,
    httptools,
    logging.handlers,
    mmap,
    multiprocessing,
    platform,
    selectors,
    ssl,
    subprocess,
    tempfile,
    unittest.mock,
    uvicorn,
    webbrowser,
)

#: Modules that exist on POSIX only; and uvloop, which has no build for Windows.
MODULES = (
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
    "uvloop",
)

#: Attributes that do not exist on Windows in modules that do.
ATTRIBUTES = {
    os: "fork forkpty getpgid getuid getgid geteuid killpg mkfifo pread preadv pwrite pwritev readv writev "
    "register_at_fork sched_getaffinity setsid getloadavg chown fchown fchmod pipe2 sendfile uname wait3 wait4 "
    "WIFEXITED WNOHANG O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY get_blocking set_blocking",
    select: "epoll poll EPOLLIN EPOLLERR EPOLLHUP",
    selectors: "EpollSelector PollSelector",
    signal: "SIGHUP SIGCHLD SIGKILL SIGALRM SIGUSR1 SIGUSR2 SIGQUIT SIGPIPE SIGSTOP SIGCONT SIGWINCH pthread_kill "
    "pthread_sigmask alarm setitimer siginterrupt sigwait",
    socket: "AF_UNIX MSG_NOSIGNAL MSG_DONTWAIT TCP_USER_TIMEOUT TCP_INFO TCP_NOTSENT_LOWAT SO_REUSEPORT SO_PEERCRED "
    "sethostname",
}

# Windows has socketpair() and select(), and the event loop uses both.
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
for name in MODULES:
    sys.modules[name] = None
for module, names in ATTRIBUTES.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
selectors.DefaultSelector = selectors.SelectSelector
sys.platform = "win32"
