"""Versions on disk: reading a tree, storing its chunks, and putting a tree together again.

Nothing here knows the reactor; all of it blocks, and is meant for worker threads.

============== ========================================================================
``tree``       a directory into a manifest (``treecache``: quickly, when little changed)
``packing``    the chunks of a directory that was read, packed for the store or the wire
``packs``      the chunk store: packs of CHUNK frames, ``shelf`` with their index in memory,
               ``packindex`` on disk, ``packwriter`` to add
``deltas``     the difference between two versions, made once, sent to every node
``assembly``   a manifest and what comes into a directory, verified and durable: ``leftovers`` of
               an earlier attempt, a ``basetree`` to take from, what is ``wanted``, the tree that
               is ``growing`` and ``settling``, with ``writeback`` of its large files, by a ``crew``
               of threads; ``readin`` for after that
``checking``   a tree held against its manifest
``durable``    what it takes for bytes to survive a crash
``space``      full disks, foreseen
============== ========================================================================
"""
