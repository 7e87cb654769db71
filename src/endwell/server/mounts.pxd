cimport cython

from endwell.aio.exchange cimport Exchange
from endwell.asgi.http cimport HttpCall
from endwell.asgi.scope cimport scope_of
from endwell.http.headers cimport is_plain
from endwell.http.request cimport Request


cdef class Mount:
    cdef readonly str prefix
    cdef readonly list segments
    cdef readonly Py_ssize_t size
    cdef readonly object application
    cdef readonly object lifespan
    cdef readonly object max_body
    cdef readonly object options
    cdef readonly object route
    cdef object _version
    cdef str _root_path

    @cython.locals(scope=dict)
    cpdef dict scope(self, Exchange exchange, Request request, kind)


cdef class Mounts:
    cdef object _dispatcher
    cdef list _mounts
    cdef readonly bint exist
    cdef Mount _everything
    cdef set _undecided
    cdef object _http

    @cython.locals(mount=Mount, path=str, segments=list)
    cpdef find(self, Request request, bint upgrade)

    @cython.locals(scope=dict, extensions=dict, http=HttpCall)
    cpdef call(self, Mount mount, Exchange exchange, Request request, bint upgrade)


cdef _pair(address)
