"""The ideas, without Twisted, without a clock and without files: bytes, values and times come in as arguments."""
