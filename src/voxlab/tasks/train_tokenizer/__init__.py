"""task=train_tokenizer: train, measure and export a codec; `task.py` holds the entry."""
