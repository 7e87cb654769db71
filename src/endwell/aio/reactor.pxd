cimport cython

from endwell.aio._syscalls cimport monotonic

cdef double ALARM_RESOLUTION


cdef class Reactor:
    cdef object __weakref__
    cdef readonly object loop
    cdef readonly bytearray buffer
    cdef readonly bytearray encrypted
    cdef readonly bint ask_for_errors
    cdef Py_ssize_t _members
    cdef object _epoll
    cdef dict _readers
    cdef dict _alarms
    cdef dict _timers
    cdef object _stall_detector

    cpdef enter(self)
    cpdef leave(self)
    cpdef add_reader(self, int fd, stream)
    cpdef remove_reader(self, int fd)
    cpdef watch_errors_only(self, int fd)
    cpdef watch_reads(self, int fd, stream)

    @cython.locals(streams=set)
    cpdef set_alarm(self, stream, double at)

    @cython.locals(streams=set)
    cpdef unset_alarm(self, stream, double at)
