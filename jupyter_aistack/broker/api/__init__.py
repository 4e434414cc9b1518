"""The verbs that clients call, JSON in and JSON out."""
