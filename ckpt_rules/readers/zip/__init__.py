"""Zip archives: the directory at their end, and what contradicts it."""
