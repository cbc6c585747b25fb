"""Concurrent backups of Sheepdog volumes."""

__version__ = "0.1.0"
