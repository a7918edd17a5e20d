"""A dataset on a node's disk: its versions, which of them is active, and who reads them. No Twisted in here."""
