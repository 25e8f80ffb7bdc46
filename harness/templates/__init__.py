"""Machines booted once and restored as often as they are needed."""
