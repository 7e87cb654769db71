cimport cython

from endwell.aio._syscalls cimport monotonic
from endwell.aio.driver cimport Driver
from endwell.aio.websocket cimport WebSocket
from endwell.protocol.connection cimport Connection
from endwell.protocol.receiver cimport Receiver
from endwell.sync.inbox cimport ThreadInbox
from endwell.sync.portal cimport Portal
from endwell.sync.waiting cimport Waiting


cdef class Bridge(Receiver):
    cdef object __weakref__
    cdef readonly WebSocket ws
    cdef readonly Portal portal
    cdef Connection _core
    cdef Driver _stream
    cdef Py_ssize_t _write_limit
    cdef readonly bint takes_binary
    cdef object _gate
    cdef readonly bint is_open
    cdef list _staged
    cdef Py_ssize_t _staged_size
    cdef object _senders
    cdef list _callbacks
    cdef bint _reading
    cdef readonly ThreadInbox _inbox
    cdef object _queue
    cdef Waiting _receivers
    cdef set _at_work
    cdef object _answer_timer
    cdef Waiting _closers
    cdef readonly object ending
    cdef bint _over
    cdef object _callback_thread

    cpdef process_posted(self)
    cpdef queue_staged(self)
    cdef _want_message(self)
    cdef _flush(self)
    @cython.locals(inbox=ThreadInbox, count=cython.Py_ssize_t)
    cpdef deliver(self, bint inline)
    cdef _admit(self)
    cdef bint _room(self) except -1
    cpdef send(self, message)
    cdef _stage(self, message)
    cdef _send_in_turn(self, message)
    cpdef receive(self, timeout)
    cpdef bint over(self) except -1
