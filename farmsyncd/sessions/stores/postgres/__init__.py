"""Sessions in PostgreSQL: ``store`` is the Store; ``link`` one connection, ``pool`` all of them, ``news`` who ended."""
