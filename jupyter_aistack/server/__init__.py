"""The Jupyter server's side: REST, WebSocket, Unix socket and metrics around one
broker.
"""
