cimport cython


cdef class Decoder:
    cdef bytearray _buffer

    @cython.locals(
        frames=list, buffer=bytearray, begin=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t,
        length=cython.Py_ssize_t,
    )
    cpdef list feed(self, bytes data)

cdef bytes _octets(message)

cdef object _message(bytes octets, int flags)

cdef int _flags(message, slow)
