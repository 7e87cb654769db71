cdef class Keepalive:
    cdef readonly object interval
    cdef readonly object timeout
    cdef public double heard
    cdef readonly double pinged
    cdef readonly bint awaiting
    cdef readonly object deadline
    cdef readonly object latency
    cdef readonly list answered
    cdef public object own
    cdef readonly dict _waiting
    cdef long long _serial

    cdef object _ping(self, double now)
