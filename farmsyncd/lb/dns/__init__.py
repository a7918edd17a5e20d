"""Balancing by DNS round robin: the farm's name is answered with the addresses of the nodes that take new clients.

=============  ======================================================================================
``zone``       what is answered to a question: whole messages, as bytes
``addresses``  the nodes' addresses, as often as their weights say, in an order that turns with each question
``serving``    UDP and TCP on one port
``endpoint``   all of it, from a balancer's configuration
=============  ======================================================================================
"""
