"""The ``farmsync`` command: what operators type. One file for each of its commands.

``main`` gathers the commands and turns failures into one line and an exit status; ``operator`` talks with the data
server; ``times`` reads what people write as a time; ``show`` lays answers out for people; ``lb`` has the commands that
talk with a balancer.
"""
