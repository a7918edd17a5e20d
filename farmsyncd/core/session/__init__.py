"""What a shopper's session is: its id and the cookie that carries it, its state, and how two changes become one.

=============  ======================================================================================================
``faults``     what can go wrong with a session, by name
``token``      ids, their digests, and the ``ID.VERSION`` that travels in the cookie
``encoding``   a state to bytes and back, each key by itself; what cannot be kept is named
``kinds``      which types of values are kept, and how those travel that MessagePack does not know
``merging``    changes made at once, brought together key by key
``cookies``    reading a ``Cookie`` header and writing ``Set-Cookie``
=============  ======================================================================================================
"""
