"""Per-frame conditioning beside token files: the format, the functions that make columns, and the audit."""
