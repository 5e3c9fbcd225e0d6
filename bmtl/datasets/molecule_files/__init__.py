"""Readers of molecules: one kind of file each, and what they have in common in `atoms`."""
