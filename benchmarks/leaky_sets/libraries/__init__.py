"""What each library makes of a picture; one module per library, each with a table."""
