"""Bytes -> facts, executing nothing. A reader never raises for bad bytes: it returns what could be read, and problems."""
