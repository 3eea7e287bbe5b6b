"""Pickles, run over inert stand-ins: nothing is imported, nothing is called."""
