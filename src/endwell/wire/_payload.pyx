"""The functions of ``payload.py``, compiled: they mask eight bytes at a time and avoid needless copies."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8, PyUnicode_GET_LENGTH
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy


cdef void _xor(unsigned char* to, const unsigned char* source, Py_ssize_t size, const unsigned char* key) noexcept nogil:
    # memcpy(), because the data may be unaligned. Compilers turn it into plain (vector) loads.
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


cdef int _header(unsigned char* to, int first, Py_ssize_t size, int bit) noexcept:
    cdef int i
    to[0] = first
    if size < 126:
        to[1] = bit | size
        return 2
    if size < 65536:
        to[1] = bit | 126
        to[2] = size >> 8
        to[3] = size & 255
        return 4
    to[1] = bit | 127
    for i in range(8):
        to[2 + i] = (<uint64_t> size >> (56 - 8 * i)) & 255
    return 10


cpdef bytes header(int first, Py_ssize_t size, int bit=0):
    cdef unsigned char octets[10]
    cdef int count = _header(octets, first, size, bit)
    return PyBytes_FromStringAndSize(<char*> octets, count)


cdef Py_ssize_t _size(Py_ssize_t payload, bytes key) noexcept:
    return payload + (2 if payload < 126 else 4 if payload < 65536 else 10) + (4 if key else 0)


cdef void _frame(unsigned char* to, int first, const unsigned char* payload, Py_ssize_t size, bytes key) noexcept:
    to += _header(to, first, size, 0x80 if key else 0)
    if key:
        memcpy(to, PyBytes_AS_STRING(key), 4)
        _xor(to + 4, payload, size, to)
    else:
        memcpy(to, payload, size)


cpdef bytes frame(int first, payload, bytes key):
    cdef Py_buffer view
    cdef bytes made
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        made = PyBytes_FromStringAndSize(NULL, _size(view.len, key))
        _frame(<unsigned char*> PyBytes_AS_STRING(made), first, <const unsigned char*> view.buf, view.len, key)
    finally:
        PyBuffer_Release(&view)
    return made


cpdef Py_ssize_t write(bytearray block, Py_ssize_t at, int first, payload, bytes key) except -1:
    cdef Py_buffer view
    cdef Py_ssize_t end
    if type(payload) is bytes:
        # The usual case. bytes need no buffer view.
        return _write(block, at, first, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        end = _write(block, at, first, <const char*> view.buf, view.len, key)
    finally:
        PyBuffer_Release(&view)
    return end


cdef Py_ssize_t _write(bytearray block, Py_ssize_t at, int first, const char* payload, Py_ssize_t size, bytes key) except -1:
    cdef Py_ssize_t end = at + _size(size, key)
    if end > PyByteArray_GET_SIZE(block):
        PyByteArray_Resize(block, 2 * end)
    _frame(<unsigned char*> PyByteArray_AS_STRING(block) + at, first, <const unsigned char*> payload, size, key)
    return end


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


# The functions below write into a bytes object. That is safe, because no other code has a reference to it yet.


cpdef bytes reserve(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


cpdef put(bytes room, Py_ssize_t at, bytearray data, Py_ssize_t start, Py_ssize_t end, bytes key):
    cdef unsigned char* to = <unsigned char*> PyBytes_AS_STRING(room) + at
    cdef unsigned char* octets = <unsigned char*> PyByteArray_AS_STRING(data) + start
    if key:
        _xor(to, octets, end - start, <const unsigned char*> PyBytes_AS_STRING(key))
    else:
        memcpy(to, octets, end - start)


cpdef unmask(bytes room, Py_ssize_t at, Py_ssize_t end, bytes key):
    cdef unsigned char* octets = <unsigned char*> PyBytes_AS_STRING(room) + at
    _xor(octets, octets, end - at, <const unsigned char*> PyBytes_AS_STRING(key))


cpdef bytes whole(bytes room):
    return room


cpdef Py_ssize_t total(list messages, Py_ssize_t first) except -1:
    # Borrowed references, because nothing here runs Python code.
    cdef Py_ssize_t size = 0, at
    cdef PyObject* message
    for at in range(first, PyList_GET_SIZE(messages)):
        message = PyList_GET_ITEM(messages, at)
        if PyBytes_CheckExact(<object> message):
            size += PyBytes_GET_SIZE(<object> message)
        elif PyUnicode_CheckExact(<object> message):
            size += PyUnicode_GET_LENGTH(<object> message)
        else:
            raise TypeError("a message must be a str or bytes")
    return size
