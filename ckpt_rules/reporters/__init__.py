"""Reports -> text and JSON, as pure functions: the same report gives the same characters."""
