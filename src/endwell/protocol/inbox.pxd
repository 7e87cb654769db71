cimport cython

from endwell.wire._payload cimport total

cdef Py_ssize_t _BATCH


cdef class Inbox:
    cdef readonly list messages
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t max_messages
    cdef readonly Py_ssize_t max_bytes
    cdef Py_ssize_t _head

    cpdef count(self, Py_ssize_t first)

    cpdef bint is_full(self) except -1

    @cython.locals(head=cython.Py_ssize_t, messages=list)
    cpdef popleft(self)
    cpdef Py_ssize_t waiting(self) except -1
    cpdef clear(self)
