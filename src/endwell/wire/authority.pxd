cpdef tuple parse_authority(str text)
cdef _port(str text)
