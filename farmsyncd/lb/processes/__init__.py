"""A balancer in several processes, and one that takes over from another.

==============  =========================================================================================
``cbpf``        which worker a source belongs to, in the kernel and here
``sockets``     listening sockets: groups of them, and their way from one process to another
==============  =========================================================================================
"""
