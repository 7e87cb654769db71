cimport cython

cdef double NEVER
cdef int _SIZE
cdef int _MAX_CUES
cdef bytes _DETAILS
cdef int _KIND
cdef int _TRAFFIC
cdef int _RAW
cdef int _MESSAGES_IN
cdef int _BYTES_IN
cdef int _MESSAGES_OUT
cdef int _BYTES_OUT
cdef int _HEARD
cdef int _HEARD_RAW
cdef int _UNSENT
cdef int _STUCK
cdef long long _MASK
cdef double _NANO
cdef double _MAX_EXACT
cdef double _MAX_TIME
cdef int _STALLED
cdef int _PONG
cdef int _PONGS
cdef bytes _BY_DATA
cdef bytes _WHILE_OPEN


@cython.final
cdef class Recorder:
    cdef bytearray _ring
    cdef long long _first
    cdef long long _then
    cdef unsigned int _dropped
    cdef unsigned int _messages_in
    cdef unsigned int _messages_out
    cdef unsigned int _bytes_in
    cdef unsigned int _bytes_out
    cdef short _start
    cdef short _used
    cdef unsigned char _count
    cdef unsigned char _fresh
    cdef unsigned char _complete

    @cython.locals(time=cython.longlong, seen=cython.longlong, traffic=cython.int, raw=cython.bint)
    cpdef note(
        self, int noted, double now, long long messages_in, long long bytes_in, long long messages_out, long long bytes_out,
        double heard, long long unsent, double stuck_at,
    )
    cpdef count_from(self, long long messages_in, long long bytes_in, long long messages_out, long long bytes_out)
    @cython.locals(changes=cython.int)
    cdef int _changes(self, long long messages_in, long long bytes_in, long long messages_out, long long bytes_out) except -1
    cpdef add(self, int detail)
    cpdef add_float(self, double value)
    @cython.locals(at=cython.int)
    cdef int _put(self, int byte) except -1
    cdef int _put_number(self, long long number) except -1
    @cython.locals(more=cython.bint, head=cython.int, traffic=cython.int, bit=cython.int, noted=cython.int)
    cdef int _drop(self) except -1
    @cython.locals(byte=cython.int)
    cdef int _take(self) except -1
    @cython.locals(number=cython.longlong, byte=cython.longlong, shift=cython.int)
    cdef long long _take_number(self) noexcept
    cdef double _take_float(self) except *


@cython.locals(nanoseconds=cython.longlong)
cpdef long long exact(double time) noexcept
cdef long long _nanoseconds(double time) noexcept
