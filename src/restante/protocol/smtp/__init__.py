"""The server side of SMTP (RFC 5321) as a machine fed with octets.

`server.SmtpServer` is the way in; `events` is what it tells its driver.
"""
