"""VT-d itself, pure: fault reasons, source IDs and registers; nothing here knows QEMU or Linux."""
