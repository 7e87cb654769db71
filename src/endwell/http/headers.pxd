cimport cython


cdef class Headers:
    cdef public str _lines
    cdef public list _fields

    cpdef list names(self)

    @cython.locals(fields=list, line=str)
    cpdef list _unpacked(self)

    @cython.locals(size=cython.Py_ssize_t)
    cpdef list get_all(self, name)

    @cython.locals(size=cython.Py_ssize_t)
    cpdef get(self, name, default=*)

    cpdef list list_of(self, name)


@cython.locals(lines=str)
cpdef bytes serialize_head(first_line, Headers headers)

cpdef Headers headers_of_lines(str lines, list fields=*)
cpdef Headers checked_headers(list fields)
cpdef pack(Headers headers)
