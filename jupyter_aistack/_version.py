"""The version of this package, for whatever must not import more than that."""

__version__ = "0.1.0"
