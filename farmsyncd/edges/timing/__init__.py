"""Clocks read, compared and waited for: the machine's, a wrong one, farm time, and the precise trigger."""
