from endwell.aio.broadcast cimport check_slow
from endwell.aio.waiters cimport Waiters
from endwell.rooms.members cimport Call, Members
from endwell.rooms.tail cimport Tail


cdef class Room:
    cdef object __weakref__
    cdef dict __dict__
    cdef readonly object name
    cdef readonly object _registry
    cdef object _options
    cdef readonly Members _members
    cdef readonly Py_ssize_t _users
    cdef readonly object _listening
    cdef tuple _at
    cdef readonly Py_ssize_t _telling
    cdef readonly Waiters _waiters
    cdef readonly tuple _alone
    cdef readonly Tail _tail

    cpdef _published(self, position, publication, slow, call)
    cpdef _arrived(self, epoch, list batch, bint alone)
    cdef _advance(self, epoch, sequence)
