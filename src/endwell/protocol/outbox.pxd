cimport cython

cdef Py_ssize_t _SMALL
cdef Py_ssize_t _FULL


cdef class Outbox:
    cdef readonly list buffers
    cdef object _last
    cdef readonly Py_ssize_t size
    cdef public Py_ssize_t taken
    cdef readonly object write_timeout
    cdef public object stuck_at

    @cython.locals(size=cython.Py_ssize_t, joined=bytearray)
    cpdef append(self, bytes data)

    @cython.locals(alive=cython.bint, rest=cython.Py_ssize_t)
    cpdef bint take(self, Py_ssize_t count, double now) except -1
