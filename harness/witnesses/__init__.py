"""What the guest kernel and QEMU say about a fault, read into one shape."""
