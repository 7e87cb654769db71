# _futures is visible to tests.
cdef class Waiters:
    cdef readonly dict _futures

    cpdef wake(self)
