cdef class Lock:
    cdef void* _lock

    cpdef bint acquire(self, bint blocking=*, double timeout=*) except -1
    cpdef release(self)
    cpdef bint locked(self)

cpdef Lock allocate()
cpdef hand_over(list locks)
