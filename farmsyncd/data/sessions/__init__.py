"""What the data server says on its connections: one module for each role, and the gate that greets."""
