cimport cython

from endwell.protocol.closing cimport Closing
from endwell.protocol.inbox cimport Inbox
from endwell.protocol.limiter cimport Limiter
from endwell.protocol.receiver cimport Receiver
from endwell.wire._payload cimport total
from endwell.protocol.recorder cimport Recorder
from endwell.wire.codec cimport Codec

cdef double LATE
cdef double NEVER
cdef object _OPEN
cdef object _LINGERING
cdef object _ACCEPTED
cdef object _THEY_CLOSE
cdef object _PEER_CLOSED
cdef object _NOTHING
cdef object _PING
cdef int _NOTE_OPENED
cdef int _NOTE_PING
cdef int _NOTE_PING_UNREAD
cdef int _NOTE_DUE
cdef int _NOTE_DUE_UNREAD
cdef int _NOTE_PINGED
cdef int _NOTE_TICK
cdef int _NOTE_TICK_UNREAD
cdef int _NOTE_PONG
cdef int _NOTE_PONGS
cdef int _NOTE_STALLED
cdef int _NOTE_PEER_CLOSE
cdef int _NOTE_PEER_CLOSE_BEHIND
cdef int _REQUEST
cdef int _DELIVERY
cdef int _INBOX
cdef int _NOT_ASKED
cdef int _EOF
cdef int _RATE
cdef double MAX_MESSAGES
cdef long long _DIRECT_READ
cdef Py_ssize_t _AHEAD


cdef class Connection(Closing):
    cdef readonly Inbox inbox
    cdef readonly Py_ssize_t partial_size
    cdef readonly bint message_wanted
    cdef int _paused
    cdef object _control
    cdef readonly bytes _pong
    cdef Limiter _limiter

    cpdef open(self, bytes head)
    cpdef requested(self)
    cpdef limit_request(self, double until)
    cpdef next_request(self, double now, double opened_at)
    cpdef receive(self, data, double now)

    cpdef bint wants_read(self) except -1
    cpdef int pauses(self) except -1
    cpdef pause(self, int reason)
    cpdef resume(self, int reason)
    cpdef deliver_to(self, Receiver receiver)
    cpdef bint want_message(self) except -1

    @cython.locals(codec=Codec)
    cpdef bint has_unparsed(self)

    @cython.locals(codec=Codec)
    cpdef Codec room(self)

    @cython.locals(full=cython.bint, messages=list, codec=Codec, limiter=Limiter, before=cython.Py_ssize_t, arrived=cython.Py_ssize_t, size=cython.Py_ssize_t)
    cpdef feed(self, bytearray data, Py_ssize_t end, double now, Py_ssize_t inside=*)

    @cython.locals(limiter=Limiter, arrived=cython.Py_ssize_t)
    cdef _admit(self, list messages, Py_ssize_t first, double now)
    cdef _take_control(self, object control, list messages, Py_ssize_t first)
    cdef _send_control(self, list messages)
    cdef _handle_controls(self, list controls, double now)
    cdef bint _handler_busy(self) except -1
    cpdef sent(self, Py_ssize_t count, double now)
    @cython.locals(codec=Codec)
    cpdef bint send(self, message, double now) except -1
    @cython.locals(codec=Codec)
    cpdef bint takes_binary(self)
    @cython.locals(codec=Codec, frame=bytes)
    cpdef bytes share(self, message, dict frames, double now)
    @cython.locals(codec=Codec, together=bytes)
    cpdef bytes share_all(self, list messages, dict frames, double now)
    cpdef say(self, message)
    cpdef stalled(self, double since, double seconds, double now)
    cdef bint _must_read(self)
    @cython.locals(recorder=Recorder)
    cdef _begin_recording(self, double now)
    @cython.locals(recorder=Recorder)
    cdef _add_stall(self, double since, double seconds)
    @cython.locals(count=cython.Py_ssize_t)
    cdef _note_pong(self, payload, double now)
    cdef _note_tick(self, verdict, bint unread, double now)
    cdef _queue_ping(self, payload, double now)
    cdef _answer_ping(self, bytes payload)

