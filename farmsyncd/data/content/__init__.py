"""The bytes of versions at the data server.

================  =======================================================================================
``library``       the manifests of the versions that are kept, and their chunks
``arrivals``      chunks that an operator uploads
``publication``   how an offered or a read tree becomes a version that is kept, and a dataset's next cycle
``deltas``        the one difference for the common step, made once
``transfers``     how many nodes are served at once, and how fast
``housekeeping``  what is kept no longer goes
``sources``       where a periodic dataset is read from (``fetching``, ``unpacking``); ``periodic`` says when
================  =======================================================================================
"""
