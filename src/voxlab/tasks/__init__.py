"""The tasks: the only place where data, codecs, models and storage meet. Nothing imports this package."""
