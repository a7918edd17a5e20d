"""``farmsync sessions``: look at the sessions of web applications, and end some. One file for each command.

``group`` gathers them; ``asking`` opens the database and finds sessions in it. Ids are nowhere: the database has only
their digests.
"""
