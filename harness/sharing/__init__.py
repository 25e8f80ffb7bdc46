"""A NIC that its virtual functions share, seen from outside: one function's reset beside the traffic of another."""
