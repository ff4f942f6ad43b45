"""task=convert: tokens, text or audio to audio and tokens; `task.py` holds the entry."""
