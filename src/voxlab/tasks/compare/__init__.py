"""The task that lays runs side by side."""
