"""The listening sockets of a process, from /proc."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from endwell.cli.top.find import Place, places_of

if not sys.platform.startswith("linux"):
    pytest.skip("/proc is that of Linux", allow_module_level=True)


def listening(family, address):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock


def test_tcp_sockets_are_found_loopback_first(tmp_path):
    places = []
    with listening(socket.AF_INET, ("0.0.0.0", 0)) as any_address:
        places.append(Place(f"127.0.0.1:{any_address.getsockname()[1]}"))
        with listening(socket.AF_INET, ("127.0.0.2", 0)) as loopback:
            places.append(Place(f"127.0.0.2:{loopback.getsockname()[1]}"))
            with listening(socket.AF_INET6, ("::1", 0)) as six:
                places.append(Place(f"[::1]:{six.getsockname()[1]}"))
                with listening(socket.AF_UNIX, str(tmp_path / "a socket")):
                    places.append(Place("localhost", str(tmp_path / "a socket")))
                    with listening(socket.AF_UNIX, "\0abstract" + tmp_path.name):
                        places.append(Place("localhost", "\0abstract" + tmp_path.name))
                        found = places_of(os.getpid())
    assert set(places) <= set(found)


def test_a_relative_path_of_a_unix_socket_is_that_of_the_process(tmp_path):
    bind = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('a socket'); s.listen(); print(flush=True); input()"
    arguments = [sys.executable, "-c", bind]
    with subprocess.Popen(arguments, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert places_of(process.pid) == [Place("localhost", str(tmp_path / "a socket"))]
        process.stdin.close()


def test_a_process_without_a_listening_socket(tmp_path):
    proc = tmp_path
    (proc / "self").mkdir()
    (proc / "7" / "fd").mkdir(parents=True)
    with pytest.raises(ValueError, match="process 7 does not listen on any address"):
        places_of(7, proc)
    with pytest.raises(ValueError, match="there is no process 8"):
        places_of(8, proc)


def test_a_system_without_proc(tmp_path):
    with pytest.raises(ValueError, match="needs /proc"):
        places_of(1, tmp_path)


def test_only_sockets_of_the_process_that_listen_count(tmp_path):
    proc = tmp_path
    (proc / "self").mkdir()
    folder = proc / "7" / "fd"
    folder.mkdir(parents=True)
    for number, inode in enumerate((100, 101, 103)):
        (folder / str(number)).symlink_to(f"socket:[{inode}]")
    (folder / "9").symlink_to("/dev/null")
    net = proc / "7" / "net"
    net.mkdir()
    row = "   0: {}:1F90 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1"
    octets = (192).to_bytes(1) + bytes([168, 0, 5])
    address = (octets[::-1] if sys.byteorder == "little" else octets).hex().upper()
    lines = [
        "head",
        row.format(address, "0A", 100),
        row.format(address, "01", 101),
        row.format(address, "0A", 102),
    ]
    (net / "tcp").write_text("\n".join(lines))
    assert places_of(7, proc) == [Place("192.168.0.5:8080")]
