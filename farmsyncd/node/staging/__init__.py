"""Bringing versions in: connections of their own, at a pace of their own, never in the way of serving."""
