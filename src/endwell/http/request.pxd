cimport cython

from endwell.http.headers cimport Headers, serialize_head


cdef class Request:
    cdef readonly object method
    cdef readonly object target
    cdef readonly Headers headers
    cdef readonly object version
    cdef readonly object remote_address
    cdef readonly bint secure
    cdef public object params
    cdef readonly bytes _challenge


cpdef bytes challenge_of(Request request)
cpdef set_challenge(Request request, bytes octets)
@cython.locals(request=Request)
cpdef Request _request(tuple head, dict params, bytes body)
