"""What a shopper's session is: its id and the cookie that carries it, its state, and how two changes become one.

=============  ======================================================================================================
``faults``     what can go wrong with a session, by name
``token``      ids, their digests, and the ``ID.VERSION`` that travels in the cookie
``encoding``   values to bytes and back, each key by itself; what cannot be kept is named
``merging``    changes made at once, brought together key by key
``cookies``    reading a ``Cookie`` header and writing ``Set-Cookie``
=============  ======================================================================================================
"""
