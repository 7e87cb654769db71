from endwell.aio._syscalls cimport monotonic
from endwell.aio.opening cimport Answerable
from endwell.protocol.connection cimport Connection


cdef class Handover(Answerable):
    cdef readonly object options
    cdef object _changed
    cdef readonly bytes _early

    cpdef bytes _take_rest(self)
