cimport cython

from endwell.aio._syscalls cimport part, receive
from endwell.aio.reactor cimport Reactor
from endwell.aio.tls cimport TlsDriver
from endwell.protocol.connection cimport Connection


cdef class TunneledDriver(TlsDriver):
    pass


cdef class TlsInTlsDriver(TlsDriver):
    cdef object _outer
    cdef object _read_outer
    cdef object _outer_incoming
    cdef object _outer_outgoing

    @cython.locals(count=cython.Py_ssize_t, got=cython.Py_ssize_t, buffer=bytearray)
    cdef Py_ssize_t _fill(self) except -2
    @cython.locals(count=cython.Py_ssize_t, got=cython.Py_ssize_t, buffer=bytearray)
    cdef Py_ssize_t _decrypt_outer(self) except -2
    cdef bytes _take_records(self)
    cdef bint _has_unsent(self) except -1
    cdef bint _congested(self) except -1
    cdef bint _notify(self) except -1
    cdef _release(self)
