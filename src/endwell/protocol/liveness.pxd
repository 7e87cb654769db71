from endwell.protocol.deadline cimport after
from endwell.protocol.outbox cimport Outbox

cdef double LATE
cdef double NEVER
cdef double _WEIGHT
cdef double _LIFETIME_JITTER
cdef object _NOTHING


cdef class Liveness:
    cdef public object options
    cdef readonly double deadline
    cdef readonly double opened
    cdef public double last_heard
    cdef readonly double last_ping
    cdef readonly object latency
    cdef public list answered
    cdef public object last_payload
    cdef bint _live
    cdef bint _awaiting
    cdef bint _reprobed
    cdef double _keepalive_at
    cdef readonly dict _unanswered
    cdef long long _serial
    cdef double _expires_at
    cdef double _authorized_until
    cdef double _lifetime_ends_at
    cdef double _resume_at
    cdef double _last_received_at
    cdef double _state_deadline
    cdef double _report_at
    cdef double _stalled_since
    cdef double _stalled_until
    cdef double _stalled_for
    # Last, beside the first ones of Closing: what is read of each connection to add them up, and to sort them.
    cdef readonly double last_message_at
    cdef readonly double smoothed_latency
    cdef readonly Outbox outbox

    cdef _init_liveness(self, options, double now)
    cpdef begin(self, double now, bint pings=*)
    cpdef stop(self)
    cpdef limit_lifetime(self, double now, double jitter)
    cpdef authorize(self, double until)
    cpdef rearm(self)
    cpdef check(self, double now, bint not_reading)
    cdef _check_keepalive(self, double now, bint not_reading)
    cpdef probe(self, double now)
    cpdef ping_sent(self, payload, double now)
    cpdef pong_received(self, payload, double now)
    cpdef bint shift(self, double since, double seconds, double now) except -1
    cdef bint _shift_keepalive(self, double seconds) except -1
    cpdef double seconds_stalled(self)
