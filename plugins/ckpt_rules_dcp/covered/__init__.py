"""The checks of ranks/chunk-coverage, a module for each kind of thing that `.metadata` may be wrong about."""
