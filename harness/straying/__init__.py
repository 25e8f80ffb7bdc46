"""A kernel driver's own NIC that strays: a wrong address in its receive ring, and what became of the frame."""
