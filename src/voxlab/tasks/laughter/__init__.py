"""task=laughter: predict laughter before it starts, from stored frames of a speech model."""
