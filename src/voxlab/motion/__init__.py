"""Body motion: recordings, rotations, skeletons, the numbers that networks see, files and pictures."""
