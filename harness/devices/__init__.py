"""Devices of the field, one file each: how each is added, and how it is made to issue a DMA."""
