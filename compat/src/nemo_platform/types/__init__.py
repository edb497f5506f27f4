"""Shapes of arguments."""
