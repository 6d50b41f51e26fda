"""Retrieval behind one small interface; each retriever is one file, chosen by name in the config."""
