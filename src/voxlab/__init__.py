"""voxlab: discrete audio experiments."""
