"""The compiled form of ``cells.py``."""

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object view)


cpdef add(cells, Py_ssize_t index, double value):
    cdef Py_buffer* buffer
    if type(cells) is not memoryview:
        raise TypeError("cells must be a memoryview")
    buffer = PyMemoryView_GET_BUFFER(cells)
    if buffer.itemsize != sizeof(double) or not 0 <= index < buffer.len // <Py_ssize_t> sizeof(double):
        raise IndexError("there is no such cell")
    (<double*> buffer.buf)[index] += value
