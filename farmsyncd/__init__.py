"""farmsync: a farm of web servers that switches to new data at one instant, and brings shoppers back to their cart.

Where everything lives, in the order in which it may be imported (a test holds it):

=============  ======================================================================================================
``errors``     who is at fault: ConfigError, LocalError, PeerError
``core``       the ideas, as plain functions and values: the wire and its messages, clock comparison, cycles, snapshots,
               chunks and differences, the choice of a node, a session's state. No Twisted, no clock, no files
``edges``      what touches the world, each with its reactor or clock passed in: the protocol's link, the catalog, the
               chunk store and trees, the clocks and the precise trigger, the caches on disk, HTTP
``sessions``   carts that are where the shopper lands, for Python web applications of any framework; their databases
``data``       the data server: ``twistd farmsync-data``
``node``       the node: ``twistd farmsync-node``
``lb``         the balancer: ``twistd farmsync-lb``
``cli``        the ``farmsync`` command, a file for each of its commands
``reader``     ``ActiveCache``, for Python web applications; imports neither Twisted nor the daemons
=============  ======================================================================================================
"""
