cimport cython

from endwell.wire._payload cimport frame


@cython.locals(first=cython.int)
cpdef bytes build(int opcode, payload, bint masked, bint fin=*, bint rsv1=*)

@cython.locals(first=cython.int, second=cython.int, start=cython.Py_ssize_t)
cpdef tuple parse_header(bytearray data, Py_ssize_t pos, Py_ssize_t end, bint masked)

cpdef bytes new_key()
