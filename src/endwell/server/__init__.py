"""The server: routes, answers to plain HTTP requests, and what runs the handlers.

``router`` decides which handler a path belongs to, ``respond`` turns what an
HTTP handler returns into an answer and serves files, ``app`` is the
:class:`~endwell.Server` that an application writes its handlers on.
"""
