"""Damaged files for everything that reads a file."""
