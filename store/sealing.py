"""Sealing: secrets that must be read again are kept as AES-256-GCM under the master key."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORM = b"\x01"
_NONCE_BYTES = 12


def seal(master: bytes, secret: bytes, place: bytes) -> bytes:
    """`place` names the row and column it is for: moved to another it cannot be opened."""
    nonce = os.urandom(_NONCE_BYTES)
    return _FORM + nonce + AESGCM(master).encrypt(nonce, secret, place)


def unseal(master: bytes, sealed: bytes, place: bytes) -> bytes:
    """Raises `cryptography.exceptions.InvalidTag` under another master key or in another place."""
    nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    return AESGCM(master).decrypt(nonce, text, place)
