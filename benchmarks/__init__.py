"""Benchmarks: check that ours and its peers compute the same, then time all in turn. See README.md in this folder."""
