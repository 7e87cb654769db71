cimport cython

from endwell.rooms.frames cimport Decoder


cdef class Link:
    cdef object _sock
    cdef readonly Decoder decoder
    cdef object _queue
    cdef Py_ssize_t _size
    cdef readonly set behind
    cdef readonly bint ended
    cdef public bint keeps_own
    cdef readonly bint empty

    cpdef list read(self)
    cpdef write(self, bytes frame)
    cpdef bint takes(self, room) except -1
    @cython.locals(sent=cython.Py_ssize_t)
    cpdef flush(self)


# _hub and _words are visible to tests.
cdef class Broker:
    cdef readonly object _hub
    cdef list _links
    cdef list _untold
    cdef dict _telling
    cdef object _tellings
    cdef readonly dict _words

    @cython.locals(kind=cython.int)
    cpdef readable(self, Link link)
    @cython.locals(link=Link)
    cpdef flush(self)
    @cython.locals(frame=bytes, listens=cython.int, listener=Link)
    cdef _publish(self, Link link, bytes body)
