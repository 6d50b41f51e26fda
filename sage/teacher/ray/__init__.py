"""A teacher that named actors of a Ray cluster hold: exact hidden states and replies, shared by many runs."""
