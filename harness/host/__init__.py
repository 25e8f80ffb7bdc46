"""What this machine can do: QEMU, accelerator, and the set-up doctor."""
