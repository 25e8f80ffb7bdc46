"""A NIC that its virtual functions share, seen from outside.

One function's reset beside the traffic of another, and memory that only the NIC itself may reach.
"""
