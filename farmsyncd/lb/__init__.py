"""The balancer: ``twistd farmsync-lb``.

==============  =========================================================================================
``config``      what can be configured; ``options`` the command line
``farm``        the nodes: what is known of each, the state that follows, and who is given what
``seating``     which node a connection goes to; ``explain`` why
``dispatcher``  gives each connection its seat, at once or after a bounded wait; all that relays know of the farm
``deciding``    puts these together
``observer``    asks the data server which nodes there are, and what each has active
``health``      checks the nodes; ``endpoints`` how they are reached for that
``relaying``    clients' connections, carried to the nodes and back; ``prologue`` what is said before
``processes``   several workers, and one balancer that takes over from another
``memory``      what outlives a process: ``bookfile`` the sources, ``notes`` the orders and the nodes
``dns``         answers with the addresses of nodes that are eligible
``steering``    the operator's commands; ``admin`` the socket that they come over
``web``         the HTTP side
``service``     puts the daemon together
==============  =========================================================================================
"""
