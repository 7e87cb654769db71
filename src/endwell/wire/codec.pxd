cimport cython

from endwell.wire._payload cimport binary, piece, text
from endwell.wire.frames cimport build

cdef int _FINAL_TEXT
cdef int _FINAL_BINARY


cdef class Codec:
    cdef bint _client
    cdef bint _stopped
    cdef bint _final
    cdef bint _compressed
    cdef int _low
    cdef int _limit
    cdef int _opcode
    cdef Py_ssize_t _fragments
    cdef Py_ssize_t _checked
    cdef long long _missing
    cdef object _max_size
    cdef object _deflate
    cdef bytes _key
    cdef readonly bytes _partial
    cdef readonly bytearray _buffer

    cpdef receive(self, data, list events)
    cpdef feed(self, bytearray data, Py_ssize_t end, list events)

    @cython.locals(
        pos=cython.Py_ssize_t, start=cython.Py_ssize_t, after=cython.Py_ssize_t, length=cython.Py_ssize_t,
        first=cython.int, shortest=cython.int, low=cython.int, limit=cython.int, masked=cython.bint,
    )
    cdef _parse(self, bytearray data, Py_ssize_t end, list events)

    @cython.locals(first=cython.int, opcode=cython.int, length=cython.longlong, start=cython.Py_ssize_t, after=cython.Py_ssize_t)
    cdef Py_ssize_t _frame(self, bytearray data, Py_ssize_t pos, Py_ssize_t end, list events) except -2

    @cython.locals(chunk=bytes, key=bytes, turn=cython.int, last=cython.bint, after=cython.Py_ssize_t)
    cdef Py_ssize_t _take(self, bytearray data, Py_ssize_t pos, Py_ssize_t end, list events) except -2

    cdef _control(self, int opcode, bytes payload, list events)
    cdef _begin(self, int first)
    cdef _continue(self, int first)
    cdef _gather(self, bytes chunk, bint last, list events)
    cdef _check_text(self)
    cdef _stop(self)

    @cython.locals(opcode=cython.int)
    cpdef bytes message(self, message)
    cpdef bytes pong(self, payload)


cdef str _text(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
