"""task=train_tokenizer codec=motion_rvq: a tokenizer of one part of the body."""
