"""The data server: keeps datasets' courses and versions, and tells nodes of both.

===============  ===========================================================================================
``config``       what can be configured, and its defaults
``options``      the command line of ``twistd farmsync-data``; ``service`` puts the parts below together
``keeper``       the only place that changes a dataset's course; ``changes`` carries the news to the others
``followers``    nodes' connections that are pushed plans
``roster``       nodes seen, and how they last said they stand;  ``flips`` their reports;  ``pins``
``reports``      what STATUS, HISTORY and REPORT answer;  ``forecast`` what a publication would do;  ``metrics``
``sessions/``    one module for each role of a connection, and the gate that greets
``content/``     versions' bytes: library, publication, deltas, housekeeping, and the sources of periodic datasets
===============  ===========================================================================================
"""
