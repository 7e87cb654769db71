from endwell.aio._syscalls cimport thread_ident
from endwell.aio.awaiting cimport Receive
from endwell.aio.websocket cimport WebSocket


cdef class ReceiveEvent(Receive):
    cdef object _disconnected

    cpdef object step(self)


cdef class Events:
    cdef object _script
    cdef unsigned long _thread
    cdef WebSocket _ws
    cdef ReceiveEvent _receive
