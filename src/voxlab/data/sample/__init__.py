"""Small deterministic synthetic corpora, written in each data set's true on-disk layout."""
