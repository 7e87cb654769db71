cimport cython

from endwell.http.headers cimport Headers, copy_of, headers_of_lines, is_plain, octets_of
from endwell.http.request cimport Request
from endwell.wire.target cimport check_hosts, origin_form


cdef class RequestReader:
    cdef public bytes rest
    cdef readonly bint has_body
    cdef object _options
    cdef readonly _Head _head
    cdef object _challenged
    cdef object _remote_address
    cdef object _link
    cdef bytes _fields
    cdef Headers _headers
    cdef str _version

    @cython.locals(lines=list, legacy=cython.bint)
    cpdef receive(self, data)
    cpdef bytes take_rest(self)

    @cython.locals(end=cython.Py_ssize_t, lines=list, head=bytes)
    cdef list _fast_path(self, bytes data)
    @cython.locals(start=cython.Py_ssize_t)
    cdef _remember(self, bytes data, Headers headers, str version)
    @cython.locals(headers=Headers, start=cython.Py_ssize_t, end=cython.Py_ssize_t, target=str)
    cdef _repeated(self, bytes data)
    cdef _read_challenge(self, request, bytes data)


cdef class _Head:
    cdef object _options
    cdef object _malformed
    cdef object _too_large
    cdef public object _buffer
    cdef Py_ssize_t _start
    cdef Py_ssize_t _line
    cdef Py_ssize_t _searched
    cdef Py_ssize_t _lines

    @cython.locals(newline=cython.Py_ssize_t, line=cython.Py_ssize_t, end=cython.Py_ssize_t, carriage_return=cython.Py_ssize_t)
    cpdef receive(self, data)

    @cython.locals(max_line=cython.Py_ssize_t, max_head=cython.Py_ssize_t, line=cython.Py_ssize_t)
    cdef _check_limits(self, Py_ssize_t end)

    cdef _count_line(self)


cdef class _Message:
    cdef readonly list fields
    cdef readonly bint headed
    cdef readonly bytearray body
    cdef readonly bint complete


@cython.locals(fields=list, names=list, hosts=list, line=str, name=str, value=str, size=cython.Py_ssize_t, framed=cython.bint)
cdef tuple _request(list lines, bint legacy)

@cython.locals(words=list)
cdef tuple _request_line(str line)



cdef Py_ssize_t HOST_SIZE
cdef Py_ssize_t LENGTH_SIZE
cdef Py_ssize_t CODING_SIZE
