"""Message authentication codes: who wrote a frame, and that none was changed, repeated or left out.

AES-256-GMAC (NIST SP 800-38D), with a key for each direction of each connection and the number of the frame
as its nonce. GMAC because a frame can hold the weights of a large net: with the instructions that x86 and ARM
have for it, it takes about 12 ms for 244 MB, where HMAC-SHA256 takes 170.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

MAC_BYTES = 16
_NONCE_BYTES = 12


class FrameAuthenticator:
    """The MACs of the frames of one direction, in the order in which they are sent. ``key`` has 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher, self._count = AES256(key), 0

    def next(self) -> Mac:
        """The MAC of the next frame, before any of its bytes."""
        nonce = self._count.to_bytes(_NONCE_BYTES, "big")
        self._count += 1
        return Mac(Cipher(self._cipher, GCM(nonce)))


class Mac:
    """The MAC of one frame, whose bytes are added one part after the other."""

    def __init__(self, cipher: Cipher[GCM]) -> None:
        self._bytes = cipher.encryptor()

    def add(self, data: bytes | bytearray | memoryview) -> None:
        self._bytes.authenticate_additional_data(data)

    def finish(self) -> bytes:
        """The MAC of all that was added; nothing can be added afterwards."""
        self._bytes.finalize()
        return self._bytes.tag

    def matches(self, given: bytes | bytearray | memoryview) -> bool:
        """Whether ``given`` is the MAC of all that was added."""
        return hmac.compare_digest(self.finish(), given)
