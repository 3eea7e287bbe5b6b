"""OCDBT, the key-value store that Orbax writes."""
