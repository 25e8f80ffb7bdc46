"""Guests of a guest: the same machine code, run on another host than this one.

That host is reached over SSH and runs the *keeper*, a small program that holds QEMU's channels and ends it when the
connection ends.
"""
