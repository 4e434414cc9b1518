"""What the server pushes: samples and events, over a WebSocket and Jupyter's event
bus.
"""
