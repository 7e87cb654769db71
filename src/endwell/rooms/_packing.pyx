"""The compiled form of ``packing.py``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memcpy, memset


cdef inline void _write(unsigned char* at, int size, unsigned long long value) noexcept:
    while size:
        size -= 1
        at[size] = value & 255
        value >>= 8


cpdef bytes publish(unsigned long long call, int flags, bytes name, bytes message):
    cdef Py_ssize_t name_size = PyBytes_GET_SIZE(name), size = PyBytes_GET_SIZE(message)
    if name_size > 65535:
        raise ValueError("the name of a room is too long")
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, 40 + name_size + size)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(frame)
    _write(at, 4, 35 + name_size + size)
    at[4] = 1
    _write(at + 5, 8, call)
    at[13] = flags
    _write(at + 14, 2, name_size)
    memset(at + 16, 0, 24)  # the bounds of the history
    memcpy(at + 40, PyBytes_AS_STRING(name), name_size)
    memcpy(at + 40 + name_size, PyBytes_AS_STRING(message), size)
    return frame


cpdef bytes publication(
    unsigned long long sequence, int flags, bytes epoch, Py_ssize_t name_size, bytes rest, Py_ssize_t begin
):
    cdef Py_ssize_t term = PyBytes_GET_SIZE(epoch), size = PyBytes_GET_SIZE(rest) - begin
    if size < 0 or begin < 0 or term > 255:
        raise ValueError("a frame is too short, or an epoch too long")
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, 17 + term + size)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(frame)
    _write(at, 4, 12 + term + size)
    at[4] = 3
    _write(at + 5, 8, sequence)
    at[13] = flags
    at[14] = term
    _write(at + 15, 2, name_size)
    memcpy(at + 17, PyBytes_AS_STRING(epoch), term)
    memcpy(at + 17 + term, PyBytes_AS_STRING(rest) + begin, size)
    return frame


cpdef bytes published(
    unsigned long long call, unsigned long long sequence, unsigned int workers, int listens, bytes epoch
):
    cdef Py_ssize_t term = PyBytes_GET_SIZE(epoch)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, 26 + term)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(frame)
    _write(at, 4, 21 + term)
    at[4] = 2
    _write(at + 5, 8, call)
    _write(at + 13, 8, sequence)
    _write(at + 21, 4, workers)
    at[25] = listens
    memcpy(at + 26, PyBytes_AS_STRING(epoch), term)
    return frame


cpdef bytes utf8(text):
    return PyUnicode_AsUTF8String(text)


cpdef bytes part(bytes data, Py_ssize_t begin, Py_ssize_t end):
    if not 0 <= begin <= end <= PyBytes_GET_SIZE(data):
        raise ValueError("a frame is too short")
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + begin, end - begin)


cpdef unsigned long long number(bytes body, Py_ssize_t at) except? 0:
    cdef unsigned long long value = 0
    cdef int each
    if at < 0 or PyBytes_GET_SIZE(body) < at + 8:
        raise ValueError("a frame is too short")
    cdef unsigned char* octets = <unsigned char*>PyBytes_AS_STRING(body) + at
    for each in range(8):
        value = value << 8 | octets[each]
    return value
