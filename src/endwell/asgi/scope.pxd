cimport cython

from endwell.http.headers cimport Headers, octets_of
from endwell.http.request cimport Request


cdef dict _HTTP
cdef dict _WEBSOCKET

@cython.locals(target=str, path=str, query=bytes, headers=Headers, secure=cython.bint, scope=dict)
cpdef dict scope_of(Request request, kind, client, server, str root_path, version)
