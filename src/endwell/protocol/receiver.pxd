from endwell.protocol.inbox cimport Inbox


cdef class Receiver:
    cdef readonly Inbox inbox
    cdef public object quiescence

    cdef _init_receiver(self, Inbox inbox)
    cpdef deliver(self, bint inline)
    cpdef bint is_waiting(self) except -1
    cpdef last_call(self)
