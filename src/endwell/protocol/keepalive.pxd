from endwell.protocol.deadline cimport after

cdef double NEVER


cdef class Keepalive:
    cdef readonly object interval
    cdef readonly object timeout
    cdef public double heard
    cdef readonly double pinged
    cdef readonly bint awaiting
    cdef readonly double deadline
    cdef readonly object latency
    cdef readonly object smoothed
    cdef public list answered
    cdef public object own
    cdef readonly dict _waiting
    cdef long long _serial
    cdef bint _asked_anew

    cpdef bint stalled(self, double seconds) except -1
    cpdef object probe(self, double now)
