"""safetensors files: the header, and what lies beside it."""
