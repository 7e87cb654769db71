cpdef install_am_send()
