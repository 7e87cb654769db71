cdef class Tail:
    cdef readonly Py_ssize_t readers
    cdef object _publications
    cdef Py_ssize_t _bytes
    cdef dict _pages
