cimport cython

from endwell.aio._syscalls cimport monotonic
from endwell.aio.reactor cimport Reactor
from endwell.protocol.connection cimport Connection
from endwell.protocol.outbox cimport Outbox

cdef double NEVER
cdef Py_ssize_t READ_SIZE
cdef Py_ssize_t FLUSH_SIZE
cdef int MAX_READS
cdef int BURST


cdef class Driver:
    cdef object __weakref__
    cdef readonly object loop
    cdef readonly Connection core
    cdef public object receive
    cdef public object eof
    cdef public object changed
    cdef public bint delay_first_send
    cdef public object closed
    cdef public set lingering
    cdef readonly object remote_address
    cdef object _local_address
    cdef bint _is_open
    cdef bint _reading
    cdef bint _not_reading
    cdef bint _waiting
    cdef bint _out_of_buffers
    cdef bint _resuming
    cdef object _write_error
    cdef Py_ssize_t _bytes_left
    cdef bint _writing
    cdef bint _half_closed
    cdef readonly double _alarm
    cdef bint _corked
    cdef int _burst
    cdef double _now
    cdef readonly Reactor _reactor
    cdef bytearray _buffer

    cdef _init_driver(self, Reactor reactor, Connection core, remote_address)
    cdef object _ask_local_address(self)
    cdef Py_ssize_t _read(self) except -2
    cdef Py_ssize_t _write(self) except -2
    cdef _watch(self)
    cdef _half_close(self)
    cdef _close(self)
    cdef _look_for_error(self)
    cdef object _silence(self)
    cpdef bint has_input(self) except -1

    @cython.locals(core=Connection)
    cpdef settle(self)
    cpdef double now(self)
    cpdef bint wrote(self) except -1
    @cython.locals(outbox=Outbox)
    cpdef bint push(self, bytes frame) except -1
    cpdef bint push_last(self, bytes frame) except -1
    @cython.locals(outbox=Outbox)
    cpdef bint exceeds(self, Py_ssize_t limit) except -1
    cpdef uncork(self)
    cdef bint _may_read(self) except -1
    cdef bint _has_more(self)
    cdef _read_on(self)
    cdef _set_alarm(self)
    cdef _unset_alarm(self)
    cdef _do_late_io(self)
    cdef _check_deadlines(self)
    cpdef readable(self)
    @cython.locals(began=cython.double, count=cython.Py_ssize_t, core=Connection, quiet=cython.bint)
    cdef _read_turn(self)
    cdef Py_ssize_t _read_or_end(self) except -2
    cdef _end_of_file(self)
    @cython.locals(count=cython.Py_ssize_t, core=Connection)
    cdef _flush(self)
    cdef _not_written(self, exc)
    cdef _write_failed(self, exc)
    @cython.locals(began=cython.double, count=cython.Py_ssize_t)
    cdef _read_after_failure(self)
    cdef _released(self)
