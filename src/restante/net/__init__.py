"""The only code that touches sockets: connections, and the services spoken on them."""
