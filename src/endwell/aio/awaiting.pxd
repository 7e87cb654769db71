from endwell.aio._syscalls cimport thread_ident
from endwell.aio.driver cimport Driver
from endwell.protocol.connection cimport Connection
from endwell.protocol.inbox cimport Inbox
from endwell.protocol.receiver cimport Receiver


cdef class Slot(Receiver):
    cdef object __weakref__
    cdef public bint _asyncio_future_blocking
    cdef public bint busy
    cdef public bint over
    cdef readonly object get_loop
    cdef public unsigned long thread
    cdef object _loop
    cdef bint _woken
    cdef bint _cancelling
    cdef object _callback
    cdef object _context

    cpdef Slot take(self)
    cpdef release(self)
    cpdef wake(self, bint inline)
    cpdef guard(self, name)


cdef class Receive:
    cdef object __weakref__
    cdef Driver _stream
    cdef Connection _core
    cdef Slot _slot
    cdef int _at_end

    cpdef object step(self)


cdef class Done:
    pass
