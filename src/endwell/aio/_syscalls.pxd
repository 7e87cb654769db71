cpdef double monotonic()
cpdef Py_ssize_t receive(sock, bytearray buffer) except -2
cpdef Py_ssize_t send(sock, data) except -2
cpdef Py_ssize_t send_many(sock, buffers) except -2
cpdef int error_of(sock) except -1
