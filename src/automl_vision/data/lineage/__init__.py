"""Evidence of which images are copies of which."""
