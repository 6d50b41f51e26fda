"""Make the small models that ship with the package: tokenizer, expert play as text, supervised training."""
