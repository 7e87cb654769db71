from endwell.aio._syscalls cimport monotonic
from endwell.sync.waiting cimport Waiting


cdef class Portal:
    cdef object __weakref__
    cdef readonly object loop
    cdef public Py_ssize_t surplus
    cdef readonly object callbacks
    cdef readonly object reconnecting_callbacks
    cdef readonly object bridges
    cdef bint _inherited
    cdef object _thread
    cdef object _posted
    cdef object _wakeup_pending
    cdef double _paused_until

    cpdef post(self, bridge)
    cpdef hand_over(self, Waiting waiting, Py_ssize_t count)
    cpdef guard(self)
    cpdef _process_posted(self)
    cdef bint _keep_or_release_wakeup(self) except -1
    cdef _process_batch(self)
