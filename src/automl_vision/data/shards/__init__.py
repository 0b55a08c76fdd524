"""Tar shards in WebDataset layout: written with split and lineage decided, read by byte ranges, never unpickled."""
