"""Ways to a provider of the Responses API, and stand-ins for one.

The one rule: everything here uses turnlog's public names only, and is found by entry point
(`turnlog.transports`), so that a transport of somebody else is as good as ours.
"""
