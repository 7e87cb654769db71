cimport cython

from endwell.rooms.arrivals cimport Arrivals
from endwell.rooms.frames cimport Decoder, pack_publish, unpack_arrival, unpack_published
from endwell.rooms.overdue cimport Overdue


cdef class Incoming:
    cdef object _receiver
    cdef object _word
    cdef object _numbers
    cdef Overdue _overdue
    cdef object _new_future
    cdef public bint silent
    cdef Decoder _decoder
    cdef Arrivals _arrivals
    cdef tuple _own
    cdef readonly dict publishing
    cdef readonly dict delivered
    cdef readonly dict healing

    cpdef tuple begin(self, room, message, history, slow, call)
    @cython.locals(arrivals=Arrivals, kind=cython.int)
    cpdef feed(self, bytes data)
    @cython.locals(listens=cython.int)
    cdef _published(self, bytes body)
    cdef _publication(self, bytes body)
    cdef _deliver(self, room, epoch, sequence, message, slow, call)
