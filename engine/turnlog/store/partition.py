"""Which partition a conversation is in.

The one rule: the number of partitions is fixed when a database is made, and the partition follows
from the conversation's id alone (design section 5).
"""

from __future__ import annotations

import hashlib


def partition_of(conversation: str, partitions: int) -> int:
    """The first eight bytes of SHA-256 of the id, big-endian, modulo the number of partitions."""
    if partitions == 1:
        return 0
    digest = hashlib.sha256(conversation.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % partitions
