from endwell.aio._syscalls cimport monotonic
from endwell.aio.stream cimport Stream
from endwell.aio.websocket cimport WebSocket
from endwell.protocol.connection cimport Connection
from endwell.protocol.inbox cimport Inbox
from endwell.sync.portal cimport Portal
from endwell.sync.waiting cimport Waiting


cdef class Bridge:
    cdef object __weakref__
    cdef readonly WebSocket ws
    cdef readonly Portal portal
    cdef Connection _core
    cdef Stream _stream
    cdef Py_ssize_t _write_limit
    cdef readonly bint takes_binary
    cdef object _gate
    cdef readonly bint is_open
    cdef list _staged
    cdef Py_ssize_t _staged_size
    cdef object _senders
    cdef list _callbacks
    cdef readonly object _inbox
    cdef Py_ssize_t _max_queue
    cdef Py_ssize_t _low
    cdef Py_ssize_t _max_waiting
    cdef Py_ssize_t _waiting_size
    cdef Py_ssize_t _surplus
    cdef bint _inbox_full
    cdef bint _reading
    cdef Waiting _receivers
    cdef public object quiescence
    cdef set _at_work
    cdef object _answer_timer
    cdef Waiting _closers
    cdef readonly object ending
    cdef bint _over
    cdef object _callback_thread
    cdef object _changed_below

    cpdef process_posted(self)
    cpdef queue_staged(self)
    cdef _want_message(self)
    cdef _flush(self)
    cdef _deliver(self)
    cdef bint _full(self) except -1
    cdef _regulate(self)
    cdef _admit(self)
    cpdef bint is_waiting(self) except -1
    cdef bint _room(self) except -1
    cpdef send(self, message)
    cdef _stage(self, message)
    cdef _send_in_turn(self, message)
    cpdef receive(self, timeout)
    cpdef bint over(self) except -1
