"""EXECUTORS: where trials run."""
