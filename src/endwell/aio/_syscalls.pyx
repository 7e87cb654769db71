"""The compiled form of ``syscalls.py``."""

from cython cimport freelist

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject_AsFileDescriptor
from libc.errno cimport EAGAIN, EINTR, errno
from posix.time cimport clock_gettime, clockid_t, timespec

cdef extern from "time.h" nogil:
    """
    /* The clock of time.monotonic(), which the rest of the package reads. On macOS that is mach_absolute_time(). */
    #ifdef __APPLE__
    #define ENDWELL_CLOCK CLOCK_UPTIME_RAW
    #else
    #define ENDWELL_CLOCK CLOCK_MONOTONIC
    #endif
    """
    clockid_t ENDWELL_CLOCK

cdef extern from "sys/socket.h" nogil:
    """
    /* Old SDKs of macOS do not have it. Python ignores SIGPIPE in any case. */
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    """
    ssize_t c_recv "recv" (int fd, void* buffer, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void* buffer, size_t size, int flags)
    int getsockopt(int fd, int level, int name, void* value, unsigned int* size)
    enum: MSG_NOSIGNAL
    enum: SOL_SOCKET
    enum: SO_ERROR

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec* parts, int count)
    ssize_t writev(int fd, const iovec* parts, int count)

cdef extern from "Python.h" nogil:
    unsigned long PyThread_get_thread_ident()

DEF IOV = 64


cdef unsigned long _virtual_thread = 0
cdef double _virtual_time = 0.0


cpdef double monotonic():
    cdef timespec now
    if _virtual_thread and PyThread_get_thread_ident() == _virtual_thread:
        return _virtual_time
    clock_gettime(ENDWELL_CLOCK, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cpdef set_clock(now):
    global _virtual_thread, _virtual_time
    cdef unsigned long here = PyThread_get_thread_ident()
    if _virtual_thread and _virtual_thread != here:
        raise RuntimeError("another thread has a virtual clock")
    _virtual_thread, _virtual_time = (0, 0.0) if now is None else (here, now)


cpdef unsigned long thread_ident() noexcept:
    return PyThread_get_thread_ident()


cdef Py_ssize_t _result(ssize_t count) except -2:
    if count >= 0:
        return count
    if errno == EAGAIN or errno == EINTR:
        return -1
    PyErr_SetFromErrno(OSError)
    return -2


cpdef Py_ssize_t receive(int fd, bytearray buffer) except -2:
    return _result(c_recv(fd, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), 0))


cpdef bytes receive_bytes(int fd, bytearray buffer, Py_ssize_t size):
    size = min(size, PyByteArray_GET_SIZE(buffer))
    size = _result(c_recv(fd, PyByteArray_AS_STRING(buffer), size, 0))
    return None if size < 0 else PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size)


cpdef Py_ssize_t receive_past(int fd, bytes room, Py_ssize_t at, Py_ssize_t size, bytearray buffer) except -2:
    cdef iovec parts[2]
    parts[0].iov_base = PyBytes_AS_STRING(room) + at
    parts[0].iov_len = size
    parts[1].iov_base = PyByteArray_AS_STRING(buffer)
    parts[1].iov_len = PyByteArray_GET_SIZE(buffer)
    return _result(readv(fd, parts, 2))


cpdef Py_ssize_t send(int fd, data, Py_ssize_t size) except -2:
    cdef Py_buffer view
    if type(data) is bytearray:
        # The usual type, which needs no view.
        return _result(c_send(fd, PyByteArray_AS_STRING(data), size, MSG_NOSIGNAL))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _result(c_send(fd, view.buf, size, MSG_NOSIGNAL))
    finally:
        PyBuffer_Release(&view)


cpdef Py_ssize_t send_many(int fd, list buffers) except -2:
    cdef Py_buffer views[IOV]
    cdef iovec parts[IOV]
    cdef int count = 0, i
    try:
        for data in buffers:
            PyObject_GetBuffer(data, &views[count], PyBUF_SIMPLE)
            parts[count].iov_base = views[count].buf
            parts[count].iov_len = views[count].len
            count += 1
            if count == IOV:
                break
        # Python ignores SIGPIPE, so writev() is as safe as sendmsg() with MSG_NOSIGNAL.
        return _result(writev(fd, parts, count))
    finally:
        for i in range(count):
            PyBuffer_Release(&views[i])


cpdef int error_of(sock) except -1:
    cdef int fd = PyObject_AsFileDescriptor(sock), value = 0
    cdef unsigned int size = sizeof(value)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &size):
        PyErr_SetFromErrno(OSError)
        return -1
    return value


@freelist(4)
cdef class _Part:
    cdef bytearray data
    cdef Py_ssize_t size

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyObject_GetBuffer(self.data, view, flags)
        # A bytearray that is not exported may have become shorter.
        view.len = min(self.size, view.len)


cpdef part(bytearray data, Py_ssize_t size):
    cdef _Part result = _Part.__new__(_Part)
    result.data = data
    result.size = size
    return result
