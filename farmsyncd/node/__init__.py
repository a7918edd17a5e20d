"""The node, ``twistd farmsync-node``: brings versions in beforehand, and flips to them at one instant with the farm.

================  =====================================================================================================
``service``       options and the service that twistd runs
``config``        what a configuration file may say
``node``          wires everything below together
``follower``      the connection that follows the schedule: asks, hears, tells
``replica``       one dataset on this node: carries out what :mod:`farmsyncd.core.standing` decides
``unopened``      a dataset that cannot be followed, because of its directory
``surroundings``  what all replicas share
``pointing``      which version is the active one at this nanosecond; the appointment with the next
``record``        what must not be forgotten over a restart; ``diary`` writes it
``swaps``         what is told of swaps: to the log, the hooks, the data server
``boot``          what the disk holds at start, and whether it may be served; ``checking`` looks
``worker``        whoever does what blocks
``errand``        bringing one version at a time in, again and again until it is there
``staging``       bringing a version in, once
``shelf``         the versions that can be served
``upkeep``        removing what is not needed any longer
``hooks``         what is told of each flip: a command, a URL
``serving``       the active cache over HTTP
``application``   a WSGI application beside it, with sessions
``report``        ``/status`` and ``/metrics``
``agentcheck``    what HAProxy is told of this node
================  =====================================================================================================
"""
