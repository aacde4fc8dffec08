"""Codecs: the two-way doors between data and tokens, one file a domain."""
