cimport cython

from endwell.http.headers cimport Headers, copy_of, replace_list, serialize_head


cdef class Request:
    cdef readonly object method
    cdef readonly object target
    cdef readonly Headers headers
    cdef readonly object version
    cdef readonly object remote_address
    cdef public object params
    cdef public object route
    cdef object _link
    cdef object _rare


cdef _rare_of(Request request)
cdef _source(Request request)
cpdef bytes challenge_of(Request request)
cpdef set_challenge(Request request, bytes octets)
cpdef imitate(Request request, Request original)
cpdef set_body(Request request, body)
@cython.locals(headers=Headers)
cpdef take_bearer(Request request)
cpdef bint offers_bearer(Request request)
cpdef set_bearer(Request request, token)
@cython.locals(again=Request)
cpdef Request renewed(Request request, token)
cpdef set_link(Request request, link)
@cython.locals(original=Request)
cpdef Request forward(Request request, remote_address, bint secure, Headers headers)
@cython.locals(request=Request)
cpdef Request _request(tuple head, dict params, bytes body, route, bearer=*)
