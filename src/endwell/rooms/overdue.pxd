cdef class Overdue:
    cdef object _expire
    cdef long long _now
    cdef object _timer

    cpdef long long begin(self) except -1
