"""How a measure says that it has no value for an item: a missing value is never a 0."""


class NotMeasurable(ValueError):
    """This measure has no value here; the text is the reason, a few words."""
