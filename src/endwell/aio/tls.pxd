cimport cython

from endwell.aio._syscalls cimport monotonic, part, receive, send
from endwell.aio.driver cimport Driver
from endwell.aio.reactor cimport Reactor
from endwell.aio.tcp cimport TcpDriver
from endwell.protocol.connection cimport Connection
from endwell.protocol.outbox cimport Outbox

cdef Py_ssize_t READ_SIZE
cdef Py_ssize_t WRITE_SIZE
cdef Py_ssize_t MAX_OWN_BYTES

cdef _first(Outbox outbox)


cdef class TlsDriver(TcpDriver):
    cdef object _incoming
    cdef object _outgoing
    cdef object _ssl_object
    cdef object _read_plain
    cdef object _write_plain
    cdef bint _handshaking
    cdef bint _shaken
    cdef bint _blocked
    cdef object _error
    cdef bint _pending
    cdef object _unsent
    cdef Py_ssize_t _encrypted
    cdef bint _notified
    cdef bytearray _encrypted_buffer

    cdef _init_tls(self, Reactor reactor, sock, Connection core, remote_address, ssl_object, incoming, outgoing)
    cdef _do_handshake(self)
    cdef int _shake_hands(self) except -2
    @cython.locals(count=cython.Py_ssize_t)
    cdef Py_ssize_t _read(self) except -2
    @cython.locals(count=cython.Py_ssize_t, full=cython.bint)
    cdef Py_ssize_t _receive(self) except -2
    @cython.locals(count=cython.Py_ssize_t, buffer=bytearray)
    cdef Py_ssize_t _fill(self) except -2
    @cython.locals(buffer=bytearray, ended=cython.bint, got=cython.Py_ssize_t, count=cython.Py_ssize_t)
    cdef Py_ssize_t _decrypt(self) except -2
    @cython.locals(count=cython.Py_ssize_t, size=cython.Py_ssize_t)
    cdef Py_ssize_t _write(self) except -2
    cdef bint _has_unsent(self) except -1
    cdef bint _congested(self) except -1
    @cython.locals(count=cython.Py_ssize_t, fresh=cython.bint)
    cdef bytes _take_records(self)
    cdef Py_ssize_t _send_records(self) except -1
    cdef bint _notify(self) except -1
    cdef _release(self)
