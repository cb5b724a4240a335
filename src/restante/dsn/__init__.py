"""Delivery status notifications: what a sender is told of a message (RFC 3461, 3464, 6522, 6533).

``reporter.DsnReporter`` is the queue's ``Reporter``. A report has three parts: what
happened in the words of people (``explanation``), the same for programs (``fields``), and
the message or its header (``original``).

The parts are put together by hand, as octets: the message is quoted as it came, however
malformed it is, and nothing in it, in an address or in what another host says can make its
report fail or add to it. Everything in this room is a function of its arguments.
"""
