"""Benchmarks, each beside what people use today, in one run on one machine: ``python -m bench [NAME ...]``.

=============  ==================================================================================
``flip``       how far apart a farm's flips are; beside a "go now" over Redis publish/subscribe
``staging``    a first copy and an update of 540 MB; beside rsync from a real daemon
``nodes``      a thousand connected nodes; beside a thousand subscribers of a Redis
``balancer``   connections through the balancer; beside HAProxy and nginx
``reader``     a read from the active version; beside opening a file through the link
``clock``      the clock comparison's error; beside its own bound
=============  ==================================================================================

``farm`` and ``asking`` run our daemons and talk to them, ``peers``, ``redis`` and ``rsyncd`` do so with others',
``balancers`` starts those that are compared, ``workers`` compares two of ours with one. ``helper`` starts what measures
in processes of its own: ``relay``, ``watcher``, ``switching``, ``subscriber``, ``clients``, ``crowd``, ``shoppers``.
``goals`` holds what is promised.
"""
