"""Benchmarks: check that ours and a peer compute the same, then time both in turn. See README.md in this folder."""
