"""The words of a scenario, one file each."""
