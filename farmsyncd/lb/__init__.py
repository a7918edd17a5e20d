"""The balancer: ``twistd farmsync-lb``.

===========  ============================================================================================
``config``   what can be configured; ``options`` the command line
``farm``     the nodes: where they are, how many connections each has, whether it takes new sources
``observer`` asks the data server which nodes there are
``relaying`` clients' connections, carried to the nodes and back
``web``      the HTTP side
``service``  puts the daemon together
===========  ============================================================================================
"""
