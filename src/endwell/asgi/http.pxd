cimport cython

from endwell.aio._syscalls cimport monotonic, thread_ident
from endwell.aio.exchange cimport Exchange
from endwell.http.request cimport Request

cdef int START
cdef int BODY
cdef int TRAILERS
cdef int DONE_STAGE
cdef int NONE
cdef int LENGTH
cdef int CHUNKED
cdef int UNTIL_EOF
cdef Py_ssize_t SMALL
cdef int ORDINARY
cdef int CONTENT_LENGTH
cdef int TRANSFER_ENCODING
cdef int CONNECTION
cdef int DATE
cdef int SERVER
cdef dict _KNOWN
cdef dict _STATUS_LINES

cdef int _kind_of(name) except -1


cdef class HttpCall:
    cdef readonly dict scope
    cdef Exchange _exchange
    cdef Request _request
    cdef object _host
    cdef unsigned long _thread
    cdef object _body
    cdef bint _unread
    cdef set _waiters
    cdef int _stage
    cdef int _status
    cdef list _head
    cdef bytes _digits
    cdef object _length
    cdef bint _close
    cdef bint _keep
    cdef bint _trailers
    cdef int _framing
    cdef long long _left

    cdef bint _is_lost(self) except -1
    cdef bint _is_over(self) except -1
    cdef bint _is_disconnected(self) except -1
    @cython.locals(exchange=Exchange, burst=cython.bint)
    cpdef send(self, event)
    @cython.locals(close=cython.bint, has_date=cython.bint, has_server=cython.bint, head=list, values=list, content=bytes, digits=bytes, kind=cython.int)
    cdef _begin(self, event)
    cdef _hint(self, event)
    @cython.locals(exchange=Exchange, request=Request, status=cython.int, framing=cython.int, keep=cython.bint, head=list, digits=bytes)
    cdef list _complete_head(self, Py_ssize_t size, bint more)
    @cython.locals(exchange=Exchange, framing=cython.int, head=list)
    cdef bint _send_body(self, bytes body, bint more) except -1
    cdef _finish(self)
    cdef _send_trailers(self, event)


cdef class _DateField:
    cdef double _since
    cdef double _until
    cdef bytes _line

    @cython.locals(now=cython.double)
    cpdef bytes line(self)

cdef _DateField _DATE
