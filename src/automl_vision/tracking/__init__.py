"""Searches shown by other programs: one file per tracker, a table of trackers, and a thread for each."""
