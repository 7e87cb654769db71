cimport cython

from endwell.rooms._packing cimport number, part, publication, publish, published, utf8

cdef Py_ssize_t _HEAD_SIZE
cdef Py_ssize_t _PUBLISH_SIZE
cdef Py_ssize_t _PUBLISHED_SIZE
cdef Py_ssize_t _PUBLICATION_SIZE
cdef int _TEXT
cdef int _KEPT


cdef class Decoder:
    cdef bytearray _buffer
    cdef Py_ssize_t _wanted

    @cython.locals(
        frames=list, buffer=bytearray, begin=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t,
        length=cython.Py_ssize_t,
    )
    cpdef list feed(self, bytes data)

cdef bytes _octets(message)

cdef object _message(bytes body, Py_ssize_t begin, int flags)

cdef int _flags(message, slow) except -1

cpdef bytes pack_publish(call, room, message, history, slow)

@cython.locals(flags=cython.int, end=cython.Py_ssize_t, length=cython.Py_ssize_t)
cpdef tuple unpack_publish(bytes body)

@cython.locals(end=cython.Py_ssize_t)
cpdef tuple unpack_call(bytes body)

cpdef bytes pack_publication(room, epoch, one, slow)

cpdef bytes pack_published(call, sequence, workers, listens, epoch)

@cython.locals(term=bytes, rest=bytes, flags=cython.int, name=cython.int)
cpdef bytes forward(bytes body, epoch, sequence)

@cython.locals(workers=cython.uint)
cpdef tuple unpack_published(bytes body)

cpdef tuple unpack_publication(bytes body)

@cython.locals(begin=cython.Py_ssize_t, end=cython.Py_ssize_t, flags=cython.int, epoch=cython.Py_ssize_t, name=cython.Py_ssize_t)
cpdef tuple unpack_arrival(bytes body)
