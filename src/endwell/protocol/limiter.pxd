cimport cython

from endwell.wire._payload cimport total

cdef double NEVER
cdef double _RESUMPTION
cdef double _EPSILON
cdef double _ROUNDING
cdef double _MANY
cdef int _WAIT
cdef int _DROP
cdef int _CLOSE


cdef class Bucket:
    cdef readonly object limit
    cdef readonly int excess
    cdef double _interval
    cdef double _rate
    cdef double _depth
    cdef double _byte_interval
    cdef double _byte_depth
    cdef double _resumption
    cdef double _byte_resumption
    cdef double _limit
    cdef double _byte_limit
    cdef double _full_at
    cdef double _bytes_full_at

    cpdef bint fits(self, Py_ssize_t count, Py_ssize_t size, double now) except -1
    cpdef bint take(self, Py_ssize_t count, Py_ssize_t size, double now) except -1
    @cython.locals(room=cython.double)
    cpdef double room(self, double now) noexcept
    @cython.locals(ready=cython.double)
    cpdef double ready_at(self) except? -1
    cpdef double full_at(self) except? -1


cdef class Limiter:
    cdef list _buckets
    cdef Bucket _single
    cdef readonly bint counts_bytes
    cdef object _on_drop
    cdef readonly double paused_until
    cdef readonly Bucket closing

    @cython.locals(room=cython.double)
    cdef double room(self, double now) noexcept
    @cython.locals(bucket=Bucket, room=cython.double)
    cdef double _room_of_all(self, double now) noexcept
    @cython.locals(full_at=cython.double, bytes_full_at=cython.double)
    cdef bint passes(self, Py_ssize_t count, Py_ssize_t size, double now) noexcept
    @cython.locals(bucket=Bucket, count=cython.Py_ssize_t, size=cython.Py_ssize_t)
    cpdef admit(self, list messages, Py_ssize_t first, double now)
    @cython.locals(kept=cython.Py_ssize_t, size=cython.Py_ssize_t, at=cython.Py_ssize_t)
    cdef tuple _remove_excess(self, Bucket bucket, list messages, Py_ssize_t first, double now)
