"""The fault atlas: which faults were provoked in a run, how they were reported, and how that compares with the spec."""
