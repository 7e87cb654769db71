cimport cython

from endwell.aio._syscalls cimport monotonic
from endwell.aio.driver cimport Driver
from endwell.aio.websocket cimport WebSocket
from endwell.protocol.connection cimport Connection
from endwell.wire.codec cimport Codec


cpdef check_slow(slow)

@cython.locals(targets=list)
cpdef broadcast(connections, message, slow)

@cython.locals(
    lagging=list, unable=list, corked=list, binary=cython.bint, frames=dict, now=cython.double, gone=cython.Py_ssize_t,
    ws=WebSocket, core=Connection, stream=Driver,frame=bytes,
)
cpdef deliver(list targets, message, slow)

@cython.locals(
    others=list, corked=list, binary=cython.bint, frames=dict, now=cython.double, gone=cython.Py_ssize_t,
    sent=cython.Py_ssize_t, before=cython.Py_ssize_t, number=cython.Py_ssize_t, ws=WebSocket, core=Connection,
    stream=Driver, frame=bytes,
)
cpdef tuple deliver_together(list targets, list messages, bint queues, bint alone)

@cython.locals(stream=Driver)
cpdef _uncork(list streams)
