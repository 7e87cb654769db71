from endwell.sync._locks cimport allocate, hand_over

cpdef acquired_lock()

cdef class Waiting:
    cdef object _locks

    cpdef wait(self, ready, double seconds)
    cdef bint _withdraw(self, lock) except -1
    cdef list _next(self, Py_ssize_t count)
    cpdef wake(self, Py_ssize_t count)
    cpdef hand_over(self, Py_ssize_t count)
