from endwell.aio._syscalls cimport monotonic
from endwell.aio.opening cimport Answerable, ConnectionSets
from endwell.aio.reactor cimport Reactor
from endwell.aio.driver cimport Driver
from endwell.protocol.connection cimport Connection
from endwell.wire.head cimport RequestReader


cdef class Site(ConnectionSets):
    cdef readonly object loop
    cdef readonly object options
    cdef readonly object tls
    cdef readonly object application
    cdef readonly Reactor reactor


cdef class Exchange(Answerable):
    cdef Site _site
    cdef RequestReader _reader
    cdef object _permit
    cdef readonly object refusal
    cdef object _body
    cdef object _streamed

    cpdef _opened(self)
    cpdef bytes _take_rest(self)
