"""A machine on another host: a server that is reached over SSH, with a VT-d and a NIC of its own.

What runs there besides QEMU and its keeper are small programs that are sent over the connection (`listener`, and
`surveyor` and `lender` with `nic_there`, which they use); nothing is installed.
"""
