"""The judge of faults provoked on a machine without a guest: pure functions over the evidence of a step.

A step there has phases. Its control proves that the request lands as long as nothing is broken, its attack is the
request that must be refused, and once healed it must land again. Each phase is held to the witnesses by itself.
"""
