from endwell.protocol.deadline cimport after

cdef double NEVER


cdef class Keepalive:
    cdef readonly object interval
    cdef readonly object timeout
    cdef public double last_heard
    cdef readonly double last_ping
    cdef readonly bint awaiting
    cdef readonly double deadline
    cdef readonly object latency
    cdef readonly object smoothed
    cdef public list answered
    cdef public object last_payload
    cdef readonly dict _unanswered
    cdef long long _serial
    cdef bint _reprobed

    cpdef bint stalled(self, double seconds) except -1
    cpdef object probe(self, double now)
