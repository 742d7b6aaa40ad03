"""A transport for turnlog to a provider with a wire of its own: `transport="example"`."""

from .transport import PROFILE, ExampleTransport, open_transport

__all__ = ["PROFILE", "ExampleTransport", "open_transport"]
