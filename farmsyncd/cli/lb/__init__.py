"""``farmsync lb``: look at a balancer and steer it, over its admin socket. One file for each command.

``group`` gathers them; ``asking`` talks with the balancer.
"""
