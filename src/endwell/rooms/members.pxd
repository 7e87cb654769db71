cimport cython

from endwell.aio.broadcast cimport deliver, deliver_together
from endwell.rooms._records cimport fill


cdef class Call:
    cdef public object exclude
    cdef public object report
    cdef public object delivered

    cpdef add(self, report)


cdef class Members:
    cdef dict _members
    cdef list _listed
    cdef list _engines
    cdef readonly Py_ssize_t _blocking
    cdef object _deliveries
    cdef Py_ssize_t _delivered
    cdef bint _scheduled

    cpdef send(self, publication, slow, call)
    cpdef send_all(self, list batch, bint alone)
    @cython.locals(messages=list, calls=list, queues=cython.bint, some=list, excluded=list, others=list)
    cdef _send_together(self, list engines, list batch, bint alone)
