"""The databases that sessions are kept in: ``base`` is what they have in common, ``url`` chooses one."""
