cimport cython

from endwell.aio._syscalls cimport error_of, monotonic, receive, receive_past, send, send_many
from endwell.aio.driver cimport Driver
from endwell.aio.reactor cimport Reactor
from endwell.protocol.connection cimport Connection
from endwell.protocol.outbox cimport Outbox
from endwell.wire.codec cimport Codec

cdef Py_ssize_t READ_SIZE
cdef int _REQUEST


cdef class TcpDriver(Driver):
    cdef readonly object _sock
    cdef int _fd
    cdef readonly bint errors_only

    cdef _init_tcp(self, Reactor reactor, sock, Connection core, remote_address)
    cdef object _ask_local_address(self)
    cdef bint _wants_writer(self) except -1
    cdef _watch_reads(self)
    @cython.locals(count=cython.Py_ssize_t, inside=cython.Py_ssize_t, codec=Codec)
    cdef Py_ssize_t _read(self) except -2
    cdef Py_ssize_t _read_failed(self, exc) except -2
    cdef bint _is_tls_error(self, exc) except -1
    @cython.locals(outbox=Outbox)
    cdef Py_ssize_t _write(self) except -2
    @cython.locals(outbox=Outbox, count=cython.Py_ssize_t)
    cpdef bint push(self, bytes frame) except -1
    cpdef bint push_last(self, bytes frame) except -1
