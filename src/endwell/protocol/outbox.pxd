cimport cython

from endwell.protocol.deadline cimport after
from endwell.wire._payload cimport frame, header, write

cdef Py_ssize_t _COPY_LIMIT
cdef Py_ssize_t _BLOCK_SIZE
cdef double NEVER
cdef list _spare


cdef class Outbox:
    cdef readonly list sealed
    cdef readonly bytearray block
    cdef readonly Py_ssize_t fill
    cdef readonly Py_ssize_t size
    cdef public Py_ssize_t bytes_sent
    cdef readonly object write_timeout
    cdef public double stuck_at

    @cython.locals(block=bytearray, end=cython.Py_ssize_t)
    cpdef append(self, bytes data)

    @cython.locals(end=cython.Py_ssize_t)
    cpdef append_frame(self, int first, payload, bytes key)

    cpdef list buffers(self)

    @cython.locals(was_full=cython.bint, rest=cython.Py_ssize_t)
    cpdef bint consume(self, Py_ssize_t count, double now) except -1

    @cython.locals(block=bytearray)
    cdef bytearray _open_block(self)

    @cython.locals(block=bytearray)
    cdef _seal_block(self)

    @cython.locals(block=bytearray)
    cdef _release_block(self)
