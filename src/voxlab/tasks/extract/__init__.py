"""task=extract: recordings to audited token data sets and features; `task.py` holds the entry."""
