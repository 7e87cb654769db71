cimport cython

from endwell.http.headers cimport Headers
from endwell.http.request cimport Request
from endwell.http.response cimport Response


cdef class Accepted:
    cdef readonly Response response
    cdef readonly object subprotocol
    cdef readonly object deflate
    cdef readonly bint heartbeat

    cpdef bytes serialize(self)
    cpdef codec(self, client, max_size)


cpdef bint wants_websocket(Request request)

@cython.locals(headers=Headers)
cpdef accept(Request request, options)

cpdef select_subprotocol(offered, supported)
cpdef check_upgrade(Request request)

@cython.locals(headers=Headers)
cpdef check_origin(Request request, allowed)

cdef list _offered_subprotocols(Headers headers)
cdef bint _is_nonce(key)
cdef _base64(data)
cdef _accept_value(key)
cdef _single(Headers headers, name)
cdef bint _has_token(Headers headers, name, token)
