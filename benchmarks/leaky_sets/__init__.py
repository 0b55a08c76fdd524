"""Leaky sets with known truth: pictures that packages serve, copies as the usual libraries make them."""
