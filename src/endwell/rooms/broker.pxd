cimport cython

from endwell.aio._syscalls cimport monotonic, receive_bytes, send, send_many
from endwell.rooms.frames cimport Decoder, forward, pack_published, unpack_call
from endwell.rooms.hub cimport Hub, RoomState

cdef bytearray _buffer


cdef class Link:
    cdef object _sock
    cdef int _fd
    cdef readonly Decoder decoder
    cdef list _frames
    cdef object _queue
    cdef Py_ssize_t _size
    cdef public bint full
    cdef readonly set behind
    cdef readonly bint ended
    cdef public bint keeps_own
    cdef public bint asks_on
    cdef readonly bint empty

    @cython.locals(data=bytes)
    cpdef list read(self)
    cpdef write(self, bytes frame)
    cpdef bint takes(self, room) except -1
    @cython.locals(frames=list, sent=cython.Py_ssize_t)
    cpdef flush(self)


# _hub and _words are visible to tests.
cdef class Broker:
    cdef readonly Hub _hub
    cdef list _links
    cdef dict _descriptors
    cdef readonly object _tellings
    cdef readonly dict _words

    @cython.locals(due=cython.double, each=tuple, link=Link, others=list)
    cpdef list serve(self, wait, double moment)
    @cython.locals(kind=cython.int)
    cpdef readable(self, Link link)
    @cython.locals(link=Link, special=cython.bint)
    cpdef bint flush(self) except -1
    @cython.locals(frame=bytes, listens=cython.int, listener=Link, listeners=set, room=RoomState)
    cdef _publish(self, Link link, bytes body)
