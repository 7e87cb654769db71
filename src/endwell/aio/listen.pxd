from endwell.aio._syscalls cimport monotonic
from endwell.aio.exchange cimport Exchange, Site


cdef class Listener(Site):
    cdef object __weakref__
    cdef public list socks
    cdef object _admission
    cdef public object places
    cdef public object refused
    cdef bint _exhausted
    cdef object _should_defer
    cdef bint _deferred
    cdef dict _acceptors

    cpdef object _admitted(self, object sock, object address, object permit)


cdef _accepted(listening)
