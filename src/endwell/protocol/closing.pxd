cimport cython

from endwell.protocol.liveness cimport Liveness
from endwell.protocol.outbox cimport Outbox
from endwell.protocol.receiver cimport Receiver
from endwell.protocol.recorder cimport Recorder
from endwell.wire.codec cimport Codec

cdef double NEVER
cdef object _OPENING
cdef object _OPEN
cdef object _ANSWERING
cdef object _LINGERING
cdef object _DISCARDING
cdef object _ENDED
cdef object _WE_CLOSE
cdef object _EOF
cdef object _PEER_VANISHED
cdef object _LOCAL
cdef tuple _NO_CUE
cdef int _NOTE_CLOSE
cdef int _NOTE_FAILED
cdef int _NOTE_FAULT
cdef int _NOTE_HANDLED
cdef int _NOTE_EOF
cdef int _NOTE_BROKEN
cdef int _NOTE_LOST
cdef int _NOTE_GONE
cdef int _NOTE_TIME_UP
cdef int _NOTE_SENT
cdef tuple _NORMAL


cdef class Row:
    cdef readonly object state
    cdef readonly tuple do


cdef class Closing(Liveness):
    # First: see the end of Liveness.
    cdef readonly bint is_open
    cdef readonly Py_ssize_t messages_in
    cdef readonly Py_ssize_t messages_out
    cdef readonly Py_ssize_t bytes_in
    cdef readonly bint client
    cdef readonly object state
    cdef readonly bint answering
    cdef readonly bint over
    cdef readonly bint ended
    cdef readonly bint half_close
    cdef readonly bint abort
    cdef readonly object received
    cdef readonly object cause
    cdef readonly object initiator
    cdef public bint connected
    cdef public Receiver receiver
    cdef readonly Py_ssize_t dropped_messages

    cdef Recorder _recorder
    cdef Codec _codec
    cdef bint _parsing
    cdef object _close
    cdef Py_ssize_t _close_size
    cdef object _sent
    cdef object _fault
    cdef object _write_error
    cdef bint _eof
    cdef double _opened_at
    cdef double _began_at
    cdef double _ended_at
    cdef object _exception
    cdef tuple _last_cue
    cdef object _ending

    cdef _init_closing(self, bint client, options, double now, double opened_at)
    cpdef bint wants_write(self)
    cpdef Py_ssize_t count_bytes_out(self)
    cpdef int end_code(self) except -1
    cpdef int end_clean(self) except -2
    cdef _transmitted_close(self)
    cpdef double seconds_open(self)
    cpdef Py_ssize_t unsent_bytes(self)
    cpdef end_for(self, verdict, double now)
    @cython.locals(is_up=cython.bint)
    cpdef time_up(self, double now)
    @cython.locals(row=Row, is_open=cython.bint)
    cpdef cue(self, cue, double now, cause=*, exception=*)
    cpdef fail_on_fault(self, double now)
    cpdef sent_in_lingering(self, Py_ssize_t count, double now)
    cdef bint _is_normal(self) except -1
    cdef bint _note(self, int noted, double now) except -1
    @cython.locals(outbox=Outbox)
    cdef bint _note_event(self, int noted, double now) except -1
    cdef bint _note_cause(self, int noted, double now, cause) except -1
    cdef _record_head(self)
