cimport cython

from endwell.http.headers cimport Headers, headers_of_lines, is_plain
from endwell.http.request cimport Request
from endwell.http.response cimport Response
from endwell.protocol.negotiation cimport negotiate


@cython.locals(headers=Headers)
cpdef bint wants_websocket(Request request)

@cython.locals(headers=Headers)
cpdef accept(Request request, options)

cpdef check_upgrade(Request request)

cdef bint _is_nonce(key)
cdef _base64(data)
cdef _accept_value(key)
cdef _single(Headers headers, name)
cdef bint _has_token(Headers headers, name, token)
