cimport cython

from endwell.aio._syscalls cimport monotonic

cdef double ALARM_RESOLUTION


cdef class Reactor:
    cdef object __weakref__
    cdef readonly object loop
    cdef readonly bytearray buffer
    cdef readonly bytearray encrypted
    cdef readonly bint ask_for_errors
    cdef readonly object memory
    cdef readonly bint has_readers
    cdef Py_ssize_t _members
    cdef object _epoll
    cdef dict _readers
    cdef dict _alarms
    cdef dict _timers
    cdef object _stall_detector
    cdef readonly double seconds_stalled

    cpdef enter(self, bint watches=*)
    cpdef leave(self)
    cpdef add_reader(self, int fd, driver)
    cpdef remove_reader(self, int fd)
    cpdef watch_errors_only(self, int fd)
    cpdef watch_reads(self, int fd, driver)

    @cython.locals(drivers=set)
    cpdef set_alarm(self, driver, double at)

    @cython.locals(drivers=set)
    cpdef unset_alarm(self, driver, double at)
