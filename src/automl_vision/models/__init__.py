"""Backbones, heads and frozen features."""
