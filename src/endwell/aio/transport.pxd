cimport cython

from endwell.aio._syscalls cimport monotonic
from endwell.aio.driver cimport Driver
from endwell.aio.reactor cimport Reactor
from endwell.protocol.connection cimport Connection
from endwell.protocol.outbox cimport Outbox

cdef Py_ssize_t READ_SIZE
cdef Py_ssize_t CHUNK_SIZE

cdef bytes _first(Outbox outbox)


cdef class TransportDriver(Driver):
    cdef object _transport
    cdef object _starting
    cdef bytes _arrived
    cdef bint _at_eof
    cdef Py_ssize_t _given
    cdef bint _closing
    cdef bint _made
    cdef bint _sock_given

    cdef _attach(self, transport)
    cdef _lost(self, exc)
    cdef _set_reading(self, transport, bint reading)
    cdef _close_transport(self, transport)
    @cython.locals(count=cython.Py_ssize_t, data=bytes)
    cdef Py_ssize_t _read(self) except -2
    @cython.locals(count=cython.Py_ssize_t)
    cdef Py_ssize_t _write(self) except -2


cdef class TlsTransportDriver(TransportDriver):
    pass
