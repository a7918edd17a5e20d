"""``make demo``: a whole farm on loopback, its clocks wrong on purpose, that switches a small shop to new prices.

The shop is a WSGI application that the nodes serve; its carts outlive the node that they were filled at.
"""
