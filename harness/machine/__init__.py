"""From a machine spec to a running QEMU: properties, argv, launch and stop."""
