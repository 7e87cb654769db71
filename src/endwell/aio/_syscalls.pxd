cpdef double monotonic()
cpdef set_clock(now)
cpdef unsigned long thread_ident() noexcept
cpdef Py_ssize_t receive(int fd, bytearray buffer) except -2
cpdef bytes receive_bytes(int fd, bytearray buffer, Py_ssize_t size)
cpdef Py_ssize_t receive_past(int fd, bytes room, Py_ssize_t at, Py_ssize_t size, bytearray buffer) except -2
cpdef Py_ssize_t send(int fd, data, Py_ssize_t size) except -2
cpdef Py_ssize_t send_many(int fd, list buffers) except -2
cpdef int error_of(sock) except -1
cpdef part(bytearray data, Py_ssize_t size)
