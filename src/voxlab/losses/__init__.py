"""Training losses: plain functions and modules on tensors."""
