"""The values of every tensor of a checkpoint, as plain data."""
