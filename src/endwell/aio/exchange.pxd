from endwell.aio._syscalls cimport monotonic
from endwell.aio.reactor cimport Reactor
from endwell.aio.driver cimport Driver
from endwell.protocol.connection cimport Connection
from endwell.wire.head cimport RequestReader


cdef class Site:
    cdef readonly object loop
    cdef readonly object options
    cdef readonly object tls
    cdef readonly object application
    cdef readonly set connections
    cdef readonly object stopping
    cdef readonly set openings
    cdef readonly set lingering
    cdef readonly Reactor reactor


cdef class Exchange:
    cdef Site _site
    cdef RequestReader _reader
    cdef Connection _core
    cdef Driver _stream
    cdef object _permit
    cdef readonly object request
    cdef readonly object refusal
    cdef readonly bint answered
    cdef object _body
    cdef object _streamed

    cpdef switch(self, accepted, options, bint keep=*)
