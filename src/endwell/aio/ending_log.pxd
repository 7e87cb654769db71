cdef object _is_enabled_for
cdef int _INFO

cpdef bint is_enabled() except -1
