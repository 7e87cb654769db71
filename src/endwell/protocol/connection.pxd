cimport cython

from endwell.protocol.deadline cimport after
from endwell.protocol.inbox cimport Inbox
from endwell.protocol.keepalive cimport Keepalive
from endwell.protocol.outbox cimport Outbox
from endwell.wire.codec cimport Codec

cdef double LATE
cdef double NEVER
cdef object _OPENING
cdef object _OPEN
cdef object _LINGERING
cdef object _ANSWERING
cdef object _DISCARDING
cdef object _ENDED
cdef object _ACCEPTED
cdef object _WE_CLOSE
cdef object _THEY_CLOSE
cdef object _EOF
cdef object _PEER_CLOSED
cdef object _PEER_VANISHED
cdef object _LOCAL
cdef tuple _NO_CUE
cdef long long _DIRECT_READ
cdef Py_ssize_t _AHEAD


cdef class Connection:
    cdef readonly bint client
    cdef public object options
    cdef readonly object state
    cdef readonly bint is_open
    cdef readonly bint answering
    cdef readonly bint over
    cdef readonly bint ended
    cdef readonly Inbox inbox
    cdef readonly Outbox outbox
    cdef readonly Keepalive keepalive
    cdef readonly double deadline
    cdef readonly bint half_close
    cdef readonly bint abort
    cdef readonly object received
    cdef public bint connected
    cdef public bint receiver_full
    cdef public bint stop_delivery
    cdef readonly Py_ssize_t partial_size
    cdef readonly bint message_wanted
    cdef public object last_call
    cdef public object receiver

    cdef Codec _codec
    cdef Py_ssize_t _max_queue
    cdef Py_ssize_t _max_waiting
    cdef bint _parsing
    cdef bint _heartbeat
    cdef readonly bytes _pong
    cdef object _close
    cdef Py_ssize_t _close_size
    cdef object _sent
    cdef object _write_error
    cdef object _fault
    cdef double _opened_at
    cdef double _began_at
    cdef readonly double opened
    cdef double _last_message_at
    cdef double _ended_at
    cdef double _state_deadline
    cdef double _report_at
    cdef bint _eof
    cdef double _expires_at
    cdef double _stalled_since
    cdef double _stalled_until
    cdef double _stalled_for
    cdef Py_ssize_t _messages_in
    cdef Py_ssize_t _messages_out
    cdef Py_ssize_t _bytes_in
    cdef Py_ssize_t _dropped
    cdef object _cause
    cdef object _initiator
    cdef object _exception
    cdef tuple _last_cue
    cdef object _ending

    cpdef receive(self, data, double now)

    cpdef bint wants_read(self)
    cpdef bint want_message(self) except -1
    cpdef bint wants_write(self)

    @cython.locals(codec=Codec)
    cpdef bint has_unparsed(self)

    @cython.locals(codec=Codec)
    cpdef Codec room(self)

    @cython.locals(full=cython.bint, messages=list, codec=Codec, before=cython.Py_ssize_t, arrived=cython.Py_ssize_t)
    cpdef feed(self, bytearray data, Py_ssize_t end, double now, Py_ssize_t inside=*)

    cdef Py_ssize_t _take_heartbeats(self, list messages, Py_ssize_t before) except -1
    cdef _handle_controls(self, list controls, double now)
    cdef bint _handler_busy(self) except -1
    cdef _sent_in_lingering(self, Py_ssize_t count, double now)
    cpdef sent(self, Py_ssize_t count, double now)
    @cython.locals(codec=Codec)
    cpdef bint send(self, message, double now) except -1
    @cython.locals(codec=Codec)
    cpdef bint takes_binary(self)
    @cython.locals(codec=Codec, frame=bytes)
    cpdef bytes share(self, message, dict frames, double now)
    cpdef stalled(self, double since, double seconds, double now)
    cdef bint _must_read(self)
    cdef bint _inbox_full(self)
    cdef bint _has_read_ahead(self)
    cdef _answer_ping(self, bytes payload)
    cdef _rearm(self)

