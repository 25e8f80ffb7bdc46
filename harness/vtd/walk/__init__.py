"""The walk of a remapping unit through its tables: what becomes of a request, step by step.

It reads memory through a function and changes nothing: it neither sets accessed and dirty bits nor keeps a cache.
Sections are those of the VT-d specification, revision 4.1.
"""

from harness.vtd.walk.dma import walk
from harness.vtd.walk.habits import SPECIFIED, Habits
from harness.vtd.walk.interrupts import InterruptWalk, Remapped, walk_interrupt
from harness.vtd.walk.result import Read, Request, Unreadable, Walk, WalkStep

__all__ = [
    "SPECIFIED",
    "Habits",
    "InterruptWalk",
    "Read",
    "Remapped",
    "Request",
    "Unreadable",
    "Walk",
    "WalkStep",
    "walk",
    "walk_interrupt",
]
