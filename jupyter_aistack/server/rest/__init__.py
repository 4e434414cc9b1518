"""The REST interface, its OpenAPI document and the Prometheus metrics."""
