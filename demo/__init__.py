"""``make demo``: a whole farm on loopback, its clocks wrong on purpose, that switches a small shop to new prices."""
