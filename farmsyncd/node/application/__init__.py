"""A WSGI application on the node: answers everything on its HTTP side that is not the node's own, nor its data.

=============  ======================================================================================================
``service``    the application, its threads and its sessions, from the node's start to its end
``loading``    finds the application that ``module:attribute`` names
``opening``    opens the sessions' database, or goes on asking for it
``side``       the HTTP side: which requests are the application's
``receiving``  requests with bodies, bounded
``crew``       the threads that run the application, and the queue before them
``environ``    a request as WSGI has it
``running``    one request in a thread: PEP 3333
``reply``      from that thread to the client, no faster than the client takes it
``snapshots``  the versions of the node's data that a request works with
``records``     what the application tells Python's ``logging``
``counting``   what ``/status`` and ``/metrics`` say of all this
=============  ======================================================================================================
"""
