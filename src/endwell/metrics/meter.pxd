cimport cython

from endwell.aio.inspection cimport Tally, add_up
from endwell.aio.websocket cimport WebSocket, count
from endwell.metrics._cells cimport add
from endwell.protocol.connection cimport Connection


cdef class _Histogram:
    cdef object _cells
    cdef Py_ssize_t _first
    cdef tuple _buckets

    @cython.locals(cell=Py_ssize_t, limit=double)
    cpdef observe(self, double value)


cdef class _Kind:
    cdef object cause
    cdef object initiator
    cdef int code
    cdef int clean
    cdef Py_ssize_t cell
    cdef _Histogram durations


cdef class RouteCounter:
    cdef object _table
    cdef object _cells
    cdef object _codes
    cdef str _name
    cdef readonly Py_ssize_t first
    cdef list _kinds
    cdef dict _durations
    cdef _Histogram _latencies
    cdef long long _in
    cdef long long _out
    cdef long long _bytes_in
    cdef long long _bytes_out
    cdef long long _unsent
    cdef long long _dropped

    cpdef opened(self)
    @cython.locals(kind=_Kind, code=int, clean=int)
    cpdef ended(self, Connection core)
    cpdef answered(self, double latency)
    @cython.locals(kind=_Kind, durations=_Histogram)
    cdef _Kind _kind(self, cause, initiator, int code, int clean)
    cpdef list sums(self)


cdef class Meter:
    cdef readonly object table
    cdef dict _routes
    cdef object _codes

    cpdef use(self, table)
    @cython.locals(counter=RouteCounter)
    cpdef opened(self, ws, route)
    cdef RouteCounter _counter(self, route)
