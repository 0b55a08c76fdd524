"""The stages of a search, one file each: functions from one value to the next. `pipeline.py` knows their order."""
