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


cdef class Request:
    cdef readonly object method
    cdef readonly object target
    cdef readonly Headers headers
    cdef readonly object version
    cdef readonly object remote_address
    cdef readonly bint secure
    cdef public object params
    cdef readonly bytes _challenge


cdef class Response:
    cdef readonly object status
    cdef readonly Headers headers
    cdef readonly object body

    cpdef bytes serialize(self)


@cython.locals(lines=str)
cdef bytes _head(first_line, Headers headers)

cpdef Headers headers_of_lines(str lines)
cpdef Headers checked_headers(list fields)
cpdef pack(Headers headers)
cpdef bytes challenge_of(Request request)
cpdef set_challenge(Request request, bytes octets)
@cython.locals(request=Request)
cpdef Request _request(tuple head, dict params, bytes body)
