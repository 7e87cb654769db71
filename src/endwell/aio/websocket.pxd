cimport cython

from endwell.aio._sending cimport install_am_send
from endwell.aio._syscalls cimport monotonic, thread_ident
from endwell.aio.awaiting cimport Slot
from endwell.aio.driver cimport Driver
from endwell.aio.ending_log cimport is_enabled
from endwell.protocol.connection cimport Connection
from endwell.protocol.receiver cimport Receiver


cdef class WebSocket:
    # First, behind the header of the object: what is read of each connection of a server to add them up, so that
    # it is on one or two cache lines.
    cdef readonly Connection _core
    cdef readonly object _counter
    cdef public Py_ssize_t _write_limit
    cdef object _request
    cdef bint _over
    cdef object __weakref__
    cdef dict __dict__
    cdef object _response
    cdef object _subprotocol
    cdef readonly Driver _stream
    cdef set _open_set
    cdef object _stopping
    cdef readonly Slot _slot
    cdef object _recv
    cdef object _read
    cdef object _next
    cdef public object _sender
    cdef public object _send_lock
    cdef public Py_ssize_t _queued
    cdef readonly object _subject
    cdef public object _key
    cdef public set _watchers
    cdef public dict _pings
    cdef readonly list _callbacks
    cdef tuple _observers
    cdef public tuple _created_at

    cpdef _answer_later(self)
    cpdef _guard(self, name)
    @cython.locals(core=Connection)
    cdef _wake_waiters(self, bint inline)
    cdef _ended(self, bint inline)


cpdef begin_close(WebSocket ws, cause, code, reason=*)
cpdef observe(WebSocket ws, tuple observers)
cpdef count(WebSocket ws, counter)
cpdef close_for(WebSocket ws, cause, code, reason=*)
@cython.locals(core=Connection)
cpdef end_delivery(WebSocket ws, cause, code, reason)
@cython.locals(receiver=Receiver)
cpdef quiesce(WebSocket ws, callback, double quiet)
cpdef stop_delivery(WebSocket ws)
cpdef messages_consumed(WebSocket ws)
cpdef bytes_sent(WebSocket ws)
cpdef opened_at(WebSocket ws)
cpdef last_message_at(WebSocket ws)
cpdef loop_of(WebSocket ws)
cpdef deliver_to(WebSocket ws, Receiver receiver)
cpdef socket_of(WebSocket ws)


cdef class _WeakLink:
    cdef object _ws

    @cython.locals(ws=WebSocket)
    cpdef changed(self, bint inline)
