cimport cython

from endwell.aio.websocket cimport WebSocket
from endwell.http.request cimport Request
from endwell.wire.codec cimport Codec

cdef double SLOW_LATENCY


cdef class Tally:
    cdef readonly Py_ssize_t open
    cdef readonly Py_ssize_t closing
    cdef readonly Py_ssize_t slow
    cdef readonly Py_ssize_t messages_in
    cdef readonly Py_ssize_t messages_out
    cdef readonly Py_ssize_t bytes_in
    cdef readonly Py_ssize_t bytes_out


@cython.locals(ws=WebSocket, tally=Tally)
cpdef add_up(connections, dict tallies)
@cython.locals(index=cython.Py_ssize_t, ws=WebSocket, request=Request, found=list)
cpdef list present(list connections, Py_ssize_t start, Py_ssize_t stop, str skipped)
cpdef key_of(WebSocket ws)
cpdef Py_ssize_t queued(WebSocket ws) except -1
cpdef double latency_of(WebSocket ws) except -2
cpdef bint is_slow(WebSocket ws) except -1
@cython.locals(codec=Codec)
cpdef bint is_compressed(WebSocket ws) except -1
