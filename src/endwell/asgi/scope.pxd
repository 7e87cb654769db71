cimport cython

from endwell.http.headers cimport Headers
from endwell.http.request cimport Request


@cython.locals(target=str, path=str, query=str, headers=Headers, secure=cython.bint, scope=dict)
cpdef dict scope_of(Request request, kind, client, server, str root_path, version)

@cython.locals(fields=list, name=str, value=str)
cdef list _octets_of(Headers headers)
