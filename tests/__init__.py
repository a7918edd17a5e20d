"""The tests; ``eventually``, ``daemons`` and the other modules without ``test_`` are what they share."""
