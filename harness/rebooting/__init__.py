"""A machine that is reset while a device writes: what writes, the reset, and what can be known of it from outside."""
