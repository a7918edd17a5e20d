"""A balancer in several processes, and one that takes over from another.

==============  =========================================================================================
``daemon``      the service that holds the listening sockets, and sees a crew through start and end
``crew``        who does the work, and what the daemon asks of them: two sorts
``alone``       this process itself, which is also what each worker is
``workforce``   several workers, and their supervisor; ``onlooker`` the supervisor's own view of the farm
``worker``      a worker's main program; ``asking`` what it and its supervisor say; ``lines`` its log
``shares``      each worker's part of the limits, and their answers told as one
``cbpf``        which worker a source belongs to, in the kernel and here
``sockets``     listening sockets: groups of them, and their way from one process to another; ``held`` the HTTP side's
``handover``    what an old balancer and its successor say to each other
``reshuffle``   sources written anew for another number of workers
``signals``     SIGHUP, a second SIGTERM, and what systemd is told
==============  =========================================================================================

A start, and what may come after it::

    take the sockets (bind, or from the old one) -> crew.prepare -> old one: pause -> crew.begin -> old one: leave
    another one comes: offer, pause, leave; if it fails: resume
    SIGTERM: close the sockets, crew.finish
"""
