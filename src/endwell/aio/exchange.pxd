cimport cython

from endwell.aio._syscalls cimport monotonic
from endwell.aio.opening cimport Answerable, ConnectionSets
from endwell.aio.reactor cimport Reactor
from endwell.aio.driver cimport Driver
from endwell.http.headers cimport is_plain
from endwell.http.request cimport Request, challenge_of
from endwell.protocol.connection cimport Connection
from endwell.wire.head cimport RequestReader

cdef int _REQUEST
cdef Py_ssize_t WINDOW
cdef Py_ssize_t MAX_HELD
cdef Py_ssize_t MAX_UNREAD


cdef class Site(ConnectionSets):
    cdef readonly object loop
    cdef readonly object options
    cdef readonly object tls
    cdef readonly object application
    cdef readonly Reactor reactor
    cdef public bint keeps_alive
    cdef bint calling
    cdef readonly dict idle
    cdef public object answered
    cdef public object gone


cdef class Exchange(Answerable):
    cdef Site _site
    cdef RequestReader _reader
    cdef readonly object permit
    cdef public object context
    cdef readonly object refusal
    cdef public bint half_closed
    cdef object _body
    cdef object _watcher
    cdef bytes _held
    cdef Py_ssize_t _held_from
    cdef bint _keep
    cdef bint _finishing
    cdef bint _finished
    cdef Py_ssize_t _sent
    cdef set _waiters

    cpdef bint is_gone(self) except -1
    @cython.locals(request=Request, has_body=cython.bint)
    cpdef bint keeps_alive(self) except -1
    cpdef bint has_body(self) except -1
    cpdef watch(self, watcher, bint half_close=*)
    cpdef start(self, int status, bytes head, bint keep)
    cpdef queue(self, bytes octets)
    cpdef bint flush(self) except -1
    cpdef write(self, bytes octets)
    cpdef bint is_full(self) except -1
    cpdef finish(self)
    cpdef wait_for_answer(self)
    cpdef bytes take_held(self)
    cdef bint _is_reading_body(self) except -1
    cdef _check_finished(self)
    @cython.locals(site=Site, following=Exchange)
    cdef _follow(self)
    cdef bytes _next_held(self)
    cdef bint _has_held(self) except -1
    cdef _await_request(self)
    cdef _call(self)
    cdef _hold_on(self)
    cdef _release(self)
    cpdef _opened(self)
    cpdef bytes _take_rest(self)
