"""One pass over every byte of a checkpoint.

tensors and zip entries, located from headers -> pieces of files -> (map, over any executor) each piece read once, in chunks
that stay in cache, its values, checksums and digests computed -> (reduce) `BytesRead`
"""
