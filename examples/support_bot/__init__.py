"""A support bot: an agent, a server, and a page."""
