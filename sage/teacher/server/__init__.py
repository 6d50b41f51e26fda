"""A teacher by address: a vLLM or SGLang server that scores exact token ids and judges."""
