"""Corpora: one module each, reading the data set's own layout. Knows files and tables, no models."""
