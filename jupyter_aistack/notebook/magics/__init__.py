"""The magics of IPython and their arguments."""
