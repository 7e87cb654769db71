"""What ``payload.py`` says, compiled: masking eight octets at a time, and no copy that can be spared."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy


cdef void _xor(unsigned char* to, const unsigned char* source, Py_ssize_t size, const unsigned char* key) noexcept nogil:
    # memcpy: the octets lie at any address, and compilers make plain (vector) loads of it.
    cdef uint32_t four
    cdef uint64_t eight, word
    cdef Py_ssize_t i = 0
    memcpy(&four, key, 4)
    eight = (<uint64_t> four << 32) | four
    while size - i >= 8:
        memcpy(&word, source + i, 8)
        word ^= eight
        memcpy(to + i, &word, 8)
        i += 8
    while i < size:
        to[i] = source[i] ^ key[i & 3]
        i += 1


cpdef bytes mask(data, key):
    cdef Py_buffer view
    cdef bytes octets = bytes(key), masked
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        masked = PyBytes_FromStringAndSize(NULL, view.len)
        _xor(<unsigned char*> PyBytes_AS_STRING(masked), <const unsigned char*> view.buf, view.len,
             <const unsigned char*> PyBytes_AS_STRING(octets))
    finally:
        PyBuffer_Release(&view)
    return masked


cpdef bytes frame(int first, payload, bytes key):
    cdef Py_buffer view
    cdef bytes made
    cdef unsigned char* octets
    cdef int bit = 0x80 if key else 0, header, i
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        header = (2 if view.len < 126 else 4 if view.len < 65536 else 10) + (4 if bit else 0)
        made = PyBytes_FromStringAndSize(NULL, header + view.len)
        octets = <unsigned char*> PyBytes_AS_STRING(made)
        octets[0] = first
        if view.len < 126:
            octets[1] = bit | view.len
        elif view.len < 65536:
            octets[1] = bit | 126
            octets[2] = view.len >> 8
            octets[3] = view.len & 255
        else:
            octets[1] = bit | 127
            for i in range(8):
                octets[2 + i] = (<uint64_t> view.len >> (56 - 8 * i)) & 255
        if bit:
            memcpy(octets + header - 4, PyBytes_AS_STRING(key), 4)
            _xor(octets + header, <const unsigned char*> view.buf, view.len, octets + header - 4)
        else:
            memcpy(octets + header, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return made


cdef bytes _copy(const unsigned char* source, Py_ssize_t size, const unsigned char* key):
    cdef bytes payload
    if key == NULL:
        return PyBytes_FromStringAndSize(<char*> source, size)
    payload = PyBytes_FromStringAndSize(NULL, size)
    _xor(<unsigned char*> PyBytes_AS_STRING(payload), source, size, key)
    return payload


cpdef bytes piece(bytearray data, Py_ssize_t start, Py_ssize_t end, bytes key):
    cdef unsigned char* octets = <unsigned char*> PyByteArray_AS_STRING(data)
    return _copy(octets + start, end - start, <const unsigned char*> PyBytes_AS_STRING(key) if key else NULL)


cpdef bytes binary(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked):
    cdef unsigned char* octets = <unsigned char*> PyByteArray_AS_STRING(data)
    return _copy(octets + start, end - start, octets + start - 4 if masked else NULL)


cpdef str text(bytearray data, Py_ssize_t start, Py_ssize_t end, bint masked):
    cdef unsigned char* octets = <unsigned char*> PyByteArray_AS_STRING(data)
    if masked:
        _xor(octets + start, octets + start, end - start, octets + start - 4)
    return PyUnicode_DecodeUTF8(<char*> octets + start, end - start, NULL)
