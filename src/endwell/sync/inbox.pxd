cimport cython

from endwell.protocol.inbox cimport Inbox
from endwell.sync.portal cimport Portal


cdef class ThreadInbox(Inbox):
    cdef readonly object queue
    cdef readonly bint paused
    cdef readonly Py_ssize_t low
    cdef public Py_ssize_t arrived
    cdef Py_ssize_t _bytes
    cdef Py_ssize_t _surplus
    cdef Portal _portal
    cdef object _senders

    @cython.locals(limit=cython.Py_ssize_t)
    cpdef bint is_full(self) except -1
    cpdef release(self)
