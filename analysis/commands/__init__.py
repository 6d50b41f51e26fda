"""The commands of `python -m analysis`, one module each: `add` declares its options, `run` answers with
tables."""
