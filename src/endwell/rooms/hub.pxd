cimport cython


cdef class RoomState:
    cdef public str epoch
    cdef public long long sequence
    cdef public object base
    cdef public object log
    cdef public set listeners
    cdef public dict keys
    cdef public double expires


# Some of the attributes are visible to tests.
cdef class Hub:
    cdef readonly object _max_bytes
    cdef public object _max_rooms
    cdef readonly object _bytes
    cdef readonly dict _rooms
    cdef object _idle
    cdef readonly list _leaving
    cdef readonly dict _reserved
    cdef object _removals
    cdef object _orders

    cpdef RoomState number(self, name, message, history, double now)
    @cython.locals(room=RoomState)
    cdef RoomState _room(self, name, double now)
