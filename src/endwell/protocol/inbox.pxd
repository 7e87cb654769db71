cimport cython

cdef Py_ssize_t _TAKEN


cdef class Inbox:
    cdef readonly list messages
    cdef Py_ssize_t _head

    @cython.locals(head=cython.Py_ssize_t, messages=list)
    cpdef popleft(self)
    cpdef clear(self)
