"""What can be known about a checkpoint: frozen, typed values without any I/O."""
