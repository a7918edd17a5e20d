"""Where farmsync meets the world: sockets, files, clocks, databases. The reactor or clock is always passed in."""
