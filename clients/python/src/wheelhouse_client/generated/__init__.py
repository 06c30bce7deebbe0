"""The messages of Wheelhouse's sockets as types, for programs that speak to them without this client: ``messages`` for operators
(docs/protocol.md), ``worker`` for workers (docs/worker-protocol.md). They are dictionaries; nothing is checked at run time."""
