cimport cython


cpdef tuple origin_form(str target)

@cython.locals(host=str)
cpdef check_hosts(list hosts, version)
