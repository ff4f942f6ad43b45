"""task=a2g: gestures from speech, by networks that predict codes of motion."""
