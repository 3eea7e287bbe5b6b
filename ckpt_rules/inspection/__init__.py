"""What a checkpoint is, as plain data."""
