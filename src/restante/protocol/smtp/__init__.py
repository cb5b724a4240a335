"""The two sides of SMTP (RFC 5321) as machines fed with octets.

`server.SmtpServer` is the way in; `events` is what it tells its driver. `client.SmtpClient`
is the way out; `client_events` is what it takes and tells.
"""
