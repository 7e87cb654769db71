cpdef bytes mask(data, key)
cpdef bytes binary(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
cpdef str text(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked)
cpdef bytes frame(int first, payload, bytes key)
