"""The server: routes, plain HTTP responses, handlers, and draining.

``app`` is the :class:`~endwell.Server`. ``router`` maps a path to its handler. ``respond`` turns the return
value of an HTTP handler into a response, and ``files`` serves files. ``run`` runs a server as a program,
``process`` supervises workers, and ``drain`` stops a server without losing messages.
"""
