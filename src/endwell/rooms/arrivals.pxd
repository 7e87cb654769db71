cdef class Arrivals:
    cdef list _groups
    cdef str _room
    cdef str _epoch
    cdef list _last

    cpdef add(self, str room, str epoch, sequence, message, slow, call)
    cpdef deliver(self, receiver)
