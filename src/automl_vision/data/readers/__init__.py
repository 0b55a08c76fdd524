"""READERS: the forms in which labelled images come."""
