"""A machine without a guest at work: its PCI buses set up, its tables laid, its devices told what to do."""
