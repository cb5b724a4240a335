"""Mail to other hosts: where to, over which connection, and what they said."""
