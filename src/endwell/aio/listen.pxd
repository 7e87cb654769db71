from endwell.aio._syscalls cimport monotonic
from endwell.aio.reactor cimport Reactor
from endwell.aio.driver cimport Driver
from endwell.protocol.connection cimport Connection
from endwell.wire.head cimport RequestReader


cdef class Listener:
    cdef object __weakref__
    cdef readonly object loop
    cdef public list socks
    cdef readonly object options
    cdef readonly object serve
    cdef readonly set openings
    cdef readonly set lingering
    cdef readonly Reactor reactor
    cdef readonly object stopping
    cdef object _admission
    cdef readonly object tls
    cdef bint _exhausted
    cdef object _should_defer
    cdef bint _deferred
    cdef dict _acceptors


cdef class Opening:
    cdef Listener _listener
    cdef RequestReader _reader
    cdef Connection _core
    cdef Driver _stream
    cdef object _permit
    cdef readonly object request
    cdef readonly bint answered


cdef _accepted(listening)
