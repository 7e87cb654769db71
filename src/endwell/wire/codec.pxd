cimport cython

from endwell.wire._payload cimport binary, frame, piece, put, reserve, text, unmask, whole
from endwell.wire.frames cimport build, new_key

cdef int _FINAL_TEXT
cdef int _FINAL_BINARY
cdef int _RSV1
cdef Py_ssize_t _MAX_WORK
cdef Py_ssize_t _FRAME_WORK
cdef Py_ssize_t _INFLATE_STEP
cdef int _MAX_MESSAGES


cdef class Codec:
    cdef bint _client
    cdef bint _stopped
    cdef bint _final
    cdef bint _compressed
    cdef int _mask_bit
    cdef int _fast_limit
    cdef int _opcode
    cdef Py_ssize_t _fragments
    cdef Py_ssize_t _checked
    cdef readonly long long missing
    cdef readonly bytes room
    cdef readonly Py_ssize_t room_fill
    cdef public int first
    cdef public bint has_close
    cdef public bint has_codes
    cdef public bint has_pings
    cdef public bint has_reply
    cdef public bint has_binary
    cdef readonly list controls
    cdef object _max_size
    cdef object _deflate
    cdef public object share_key
    cdef bytes _key
    cdef readonly bytes _partial
    cdef public bint has_unparsed
    cdef public double max_messages
    cdef Py_ssize_t _work
    cdef readonly bytearray _buffer

    cpdef bint has_partial_message(self)
    cpdef Py_ssize_t partial_size(self) except -1
    cpdef receive(self, data, list events)
    cpdef feed(self, bytearray data, Py_ssize_t end, list messages)
    cpdef read(self, Py_ssize_t count, list messages)

    @cython.locals(
        pos=cython.Py_ssize_t, start=cython.Py_ssize_t, after=cython.Py_ssize_t, length=cython.Py_ssize_t,
        first=cython.int, shortest=cython.int, low=cython.int, limit=cython.int, masked=cython.bint, room=cython.double, before=cython.Py_ssize_t,
    )
    cdef _parse(self, bytearray data, Py_ssize_t end, list messages)

    @cython.locals(first=cython.int, opcode=cython.int, length=cython.longlong, start=cython.Py_ssize_t, after=cython.Py_ssize_t, alone=cython.bint)
    cdef Py_ssize_t _frame(self, bytearray data, Py_ssize_t pos, Py_ssize_t end, list messages) except -2

    @cython.locals(chunk=bytes, last=cython.bint, after=cython.Py_ssize_t)
    cdef Py_ssize_t _read_payload(self, bytearray data, Py_ssize_t pos, Py_ssize_t end, list messages) except -2

    @cython.locals(chunk=bytes, after=cython.Py_ssize_t)
    cdef Py_ssize_t _inflate(self, bytearray data, Py_ssize_t pos, Py_ssize_t end, list messages) except -2

    @cython.locals(turn=cython.int)
    cdef _advance(self, Py_ssize_t count)

    @cython.locals(room=bytes)
    cdef _fill_room(self, Py_ssize_t count, list messages)

    cdef _control(self, int opcode, bytes payload)
    cdef _begin_message(self, int first)
    cdef _continue_message(self, int first)
    cdef _append_chunk(self, bytes chunk, bint last, list messages)
    cdef _stop(self)

    cpdef bytes message(self, message)
    cpdef payload(self, message)
    cpdef bytes key(self)
    cpdef bytes pong(self, payload)


cdef str _text(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
