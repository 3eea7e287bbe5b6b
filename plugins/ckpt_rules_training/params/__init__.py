"""The checks of optimizer/param-mismatch, each in a few lines: the optimizer by itself, then beside the weights."""
