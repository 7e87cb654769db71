cimport cython

cdef Py_ssize_t CONNECTION_SIZE
cdef Py_ssize_t UPGRADE_SIZE
cdef Py_ssize_t TE_SIZE

cdef class Headers:
    cdef public str _lines
    cdef public list _fields
    cdef public list _octets
    cdef public signed char _plain

    cdef _changed(self)

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
cpdef replace_list(Headers headers, name, list elements)
cpdef pack(Headers headers)

@cython.locals(copy=Headers)
cpdef Headers copy_of(Headers headers)

@cython.locals(octets=list, name=str, value=str)
cpdef list octets_of(Headers headers)

@cython.locals(name=str, value=str, size=cython.Py_ssize_t)
cpdef bint is_plain(Headers headers) except -1
