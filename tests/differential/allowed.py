"""Where we report an error in what a loader takes, and why that is meant to be so."""

from __future__ import annotations

ALLOWED: tuple[tuple[str, str, str, str], ...] = ()
"""Formats, the code of our problem, a pattern that its message matches, and the reason."""
