cpdef bytes publish(unsigned long long call, int flags, bytes name, bytes message)
cpdef bytes publication(
    unsigned long long sequence, int flags, bytes epoch, Py_ssize_t name_size, bytes rest, Py_ssize_t begin
)
cpdef bytes published(
    unsigned long long call, unsigned long long sequence, unsigned int workers, int listens, bytes epoch
)
cpdef bytes utf8(text)
cpdef bytes part(bytes data, Py_ssize_t begin, Py_ssize_t end)
cpdef unsigned long long number(bytes body, Py_ssize_t at) except? 0
