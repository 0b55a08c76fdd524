"""Models for other programs: one file per format, a table of formats, and a check that nothing got lost."""
