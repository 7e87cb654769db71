from endwell.aio._syscalls cimport receive, send
from endwell.aio.reactor cimport Reactor
from endwell.protocol.outbox cimport Outbox
from endwell.wire._payload cimport binary

cdef Py_ssize_t WRITE_SIZE
cdef Py_ssize_t COPY_LIMIT
cdef Py_ssize_t MAX_OWN_BYTES

cdef _first(Outbox outbox)


cdef class TLS:
    cdef int _fd
    cdef object _incoming
    cdef object _outgoing
    cdef readonly object ssl_object
    cdef readonly bint waiting
    cdef readonly bint blocked
    cdef object _read
    cdef object _write
    cdef object _error
    cdef bint _pending
    cdef object _unsent
    cdef Py_ssize_t _encrypted
    cdef bint _notified
    cdef bytearray _buffer

    cpdef int handshake(self) except -2
    cpdef Py_ssize_t receive(self, bytearray buffer) except -2
    cdef Py_ssize_t _fill(self) except -2
    cdef Py_ssize_t _decrypt(self, bytearray buffer) except -2
    cpdef Py_ssize_t send(self, Outbox outbox) except -2
    cpdef bint unsent(self) except -1
    cpdef bint congested(self) except -1
    cpdef Py_ssize_t flush(self) except -1
    cpdef bint notify(self) except -1
