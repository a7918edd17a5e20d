"""Clients' connections, carried to the nodes and back: raw sockets, since each event of each connection counts.

==============  =========================================================================================
``front``       accepts on one listening socket, and knows all connections that came by it
``fronts``      makes them, and ends them all
``relay``       one client from its acceptance to its end: a node is sought, tried, replaced, and given back
``attempt``     a connection to a node while it is being made
``greeting``    what a balancer in front says first about the client, read before a node is sought
``waiting``     a client that waits for a node: seen when it leaves
``leg``         one of a relay's two connections: its bytes go to the other one, by copying
``bulk``        the same by splicing, once there are many
``pipes``       the pool of pipes that splicing needs
``events``      readiness of sockets, in an epoll of our own below the reactor
``common``      what all relays of a front share
``vigil``       what lasts too long: a coarse sweep instead of a timer for each connection
``descriptors`` what is kept for the moment in which there are no more descriptors
``sockets``     how sockets are made and what is set on them
``names``       nodes whose address is a name
``binding``     an endpoint's description to a listening socket; its life as a service
``seating``     how a node is asked for: what relays need from whoever chooses
``prologue``    what may be said before the client's first byte: to the node, and by a balancer in front
``settings``    limits and sizes
==============  =========================================================================================

How an end travels::

    one side ends its half (FIN)      the other's half is ended once all is written; the rest goes on
    both halves have ended            both connections are closed
    one side is reset or breaks       the other is reset: never closed as if all had come
    the balancer dies                 the kernel resets both: that is how their sockets are set until both halves ended

The client is not read from until a node has taken the connection: up to then nothing can be lost, and the next node
can be tried. What was read waits in one place only, one piece at most for each direction, and no more is read until it
is gone: so the slower side sets the pace.
"""
