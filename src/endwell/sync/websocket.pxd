from endwell.aio.websocket cimport WebSocket as Asyncio
from endwell.sync.bridge cimport Bridge


cdef class WebSocket:
    cdef object __weakref__
    cdef readonly Bridge _bridge
    cdef readonly Asyncio _ws
    cdef object _stopping
