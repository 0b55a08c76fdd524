"""Which recipe next, and how much of it."""
