cimport cython

from endwell.rooms.room cimport Room


cdef class Registry:
    cdef object __weakref__
    cdef dict __dict__
    cdef public object limits
    cdef public object bus
    cdef readonly dict _listened
    cdef readonly dict reserved
    cdef object _loop

    cpdef check(self)
    cpdef check_message(self, message)
    @cython.locals(known=Room)
    cpdef arrived(self, room, epoch, list batch, bint alone)
