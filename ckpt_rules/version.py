"""The version of ckpt-rules."""

__version__ = "0.1.0"
