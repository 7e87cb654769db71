cpdef bytes mask(data, key)
cpdef bytes binary(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
cpdef str text(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
cpdef bytes header(int first, Py_ssize_t size, int bit=*)
cpdef bytes frame(int first, payload, bytes key)
cpdef Py_ssize_t write(bytearray block, Py_ssize_t at, int first, payload, bytes key) except -1
cpdef bytes piece(bytearray data, Py_ssize_t start, Py_ssize_t end, bytes key)
cpdef bytes reserve(Py_ssize_t size)
cpdef put(bytes room, Py_ssize_t at, bytearray data, Py_ssize_t start, Py_ssize_t end, bytes key)
cpdef unmask(bytes room, Py_ssize_t at, Py_ssize_t end, bytes key)
cpdef bytes whole(bytes room)
cpdef Py_ssize_t total(list messages, Py_ssize_t first) except -1
