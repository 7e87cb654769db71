cdef class Inbox:
    cdef object _first
    cdef list _rest
    cdef Py_ssize_t _head

    cpdef append(self, message)
    cpdef popleft(self)
    cpdef clear(self)
