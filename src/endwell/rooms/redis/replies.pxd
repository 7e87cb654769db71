cimport cython


cdef class Decoder:
    cdef object _parse_error
    cdef bytearray _buffer
    cdef list _arrays

    @cython.locals(
        replies=list, buffer=bytearray, arrays=list, items=list, at=cython.Py_ssize_t, end=cython.Py_ssize_t,
        size=cython.Py_ssize_t, following=cython.Py_ssize_t, number=object, kind=cython.int,
    )
    cpdef list feed(self, bytes data)
