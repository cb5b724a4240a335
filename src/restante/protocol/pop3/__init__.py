"""POP3 without sockets: the server side of RFC 1939 and its extensions (docs/rfc.md)."""
