from endwell.aio._syscalls cimport monotonic
from endwell.aio.driver cimport Driver
from endwell.protocol.connection cimport Connection


cdef class ConnectionSets:
    cdef readonly set connections
    cdef readonly object stopping
    cdef readonly set openings
    cdef readonly set lingering
    cdef public object websocket_type


cdef class Answerable:
    cdef ConnectionSets _sets
    cdef Connection _core
    cdef readonly Driver _stream
    cdef readonly object request
    cdef readonly bint answered

    cdef _init_answerable(self, ConnectionSets sets, Connection core, Driver stream, request)
    cpdef switch(self, accepted, options, bint keep=*, user=*)
    cpdef _opened(self)
    cpdef bytes _take_rest(self)
