"""Gesture: networks from audio to motion codes, and between motion and its codes."""
