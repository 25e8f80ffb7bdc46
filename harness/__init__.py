"""A harness that proves VT-d isolation with QEMU's emulated intel-iommu; start at `cli` or `runner`."""
