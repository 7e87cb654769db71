from endwell.aio._syscalls cimport thread_ident
from endwell.aio.stream cimport Stream
from endwell.protocol.connection cimport Connection
from endwell.protocol.inbox cimport Inbox


cdef class Slot:
    cdef object __weakref__
    cdef public bint _asyncio_future_blocking
    cdef public bint busy
    cdef public object quiescence
    cdef public bint over
    cdef readonly object get_loop
    cdef public unsigned long thread
    cdef object _loop
    cdef bint _woken
    cdef bint _cancelling
    cdef object _callback
    cdef object _context

    cpdef bint is_waiting(self)
    cpdef Slot take(self)
    cpdef release(self)
    cpdef wake(self, bint inline)
    cpdef guard(self, name)


cdef class Receive:
    cdef object __weakref__
    cdef Stream _stream
    cdef Connection _core
    cdef Inbox _inbox
    cdef Slot _slot
    cdef int _at_end

    cpdef object step(self)


cdef class Done:
    pass
