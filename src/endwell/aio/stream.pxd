cimport cython

from endwell.aio._syscalls cimport error_of, monotonic, receive, receive_past, send, send_many
from endwell.aio.reactor cimport Reactor
from endwell.aio.tls cimport TLS
from endwell.protocol.connection cimport Connection
from endwell.protocol.outbox cimport Outbox
from endwell.wire.codec cimport Codec

cdef double NEVER
cdef Py_ssize_t READ_SIZE
cdef Py_ssize_t FLUSH_SIZE
cdef int MAX_READS
cdef int BURST
cdef int _REQUEST


cdef class Stream:
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
    cdef readonly object _sock
    cdef int _fd
    cdef TLS _tls
    cdef bint _handshaking
    cdef bint _reading
    cdef readonly bint errors_only
    cdef bint _not_reading
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

    cpdef settle(self)
    cpdef double now(self)
    cpdef bint wrote(self) except -1
    @cython.locals(outbox=Outbox, count=cython.Py_ssize_t)
    cpdef bint push(self, bytes frame) except -1
    @cython.locals(outbox=Outbox)
    cpdef bint exceeds(self, Py_ssize_t limit) except -1
    cpdef uncork(self)
    cdef _watch(self)
    cdef _watch_reads(self)
    cdef _set_alarm(self)
    cdef _unset_alarm(self)
    cdef _end_of_file(self)
    cdef _do_late_io(self)
    cdef _check_deadlines(self)

    @cython.locals(began=cython.double, count=cython.Py_ssize_t, core=Connection, quiet=cython.bint)
    cdef _read_turn(self)
    cpdef readable(self)
    cdef bint _may_read(self) except -1
    cdef bint _has_more(self)

    @cython.locals(count=cython.Py_ssize_t, inside=cython.Py_ssize_t, codec=Codec)
    cdef Py_ssize_t _read(self) except -2
    cdef Py_ssize_t _read_or_end(self) except -2
    cdef _flush(self)
    @cython.locals(outbox=Outbox)
    cdef Py_ssize_t _write(self) except -2
    cdef _write_failed(self, exc)
    @cython.locals(began=cython.double, count=cython.Py_ssize_t)
    cdef _read_after_failure(self)
    cdef _read_on(self)
