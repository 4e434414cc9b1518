"""Give a GPU's memory back while a notebook is idle: registered models and optimizers
move to host memory and back.

It needs no rights and no driver feature; the price is that it knows only what it is
given.
"""
