"""Audio to frames at a fixed rate: what `task=extract features=...` stores and `task=laughter` learns from."""
