"""Tables and figures of evaluated runs."""
