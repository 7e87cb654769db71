from endwell.http.headers cimport Headers, serialize_head


cdef class Response:
    cdef readonly object status
    cdef readonly Headers headers
    cdef readonly object body

    cpdef bytes serialize(self)
