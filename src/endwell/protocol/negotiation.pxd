cimport cython

from endwell.http.headers cimport Headers
from endwell.http.request cimport Request, offers_bearer
from endwell.http.response cimport Response


cdef class Accepted:
    cdef readonly Response response
    cdef public object subprotocol
    cdef readonly object deflate
    cdef readonly bint heartbeat
    cdef readonly bint bearer

    cpdef bytes serialize(self)
    cpdef codec(self, client, max_size)


@cython.locals(headers=Headers, answer=Headers)
cpdef negotiate(Request request, options, Response response)

cpdef select_subprotocol(offered, supported)

@cython.locals(headers=Headers)
cpdef check_origin(Request request, allowed)

cdef list _offered_subprotocols(Headers headers)
