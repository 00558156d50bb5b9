"""Finite fields of any prime-power order, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topologies.errors import TopologyError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prime_power(order: int) -> tuple[int, int] | None:
    """Return ``(p, n)`` with order == p^n and p prime, or None where there is no such pair."""
    if order < 2:
        return None
    prime = next((p for p in range(2, int(order**0.5) + 1) if order % p == 0), order)
    exponent = 0
    while order % prime == 0:
        order //= prime
        exponent += 1
    return (prime, exponent) if order == 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A finite field of q elements, numbered so that 0 is zero and 1 is one.

    Attributes
    ----------
    powers
        int64 [q - 1]: the powers of a primitive element, from the zeroth.
    difference, product
        int64 [q, q]: a - b and a * b.
    """

    powers: NDArray[np.int64]
    difference: NDArray[np.int64]
    product: NDArray[np.int64]


def field(order: int) -> Field:
    """Return the field of that order.

    Elements are polynomials over the integers modulo p, modulo a primitive polynomial of degree
    n, the first one found; an element's number has its coefficients as digits in base p.

    Raises
    ------
    TopologyError
        If the order is no power of a prime.
    """
    found = prime_power(order)
    if found is None:
        raise TopologyError(f"there is no field of {order} elements; expected a power of a prime")
    prime, degree = found
    cycles = (_powers_of_x(prime, degree, low) for low in range(1, order))
    powers = np.array(next(cycle for cycle in cycles if len(cycle) == order - 1), dtype=np.int64)
    place = np.zeros(order, dtype=np.int64)
    place[powers] = np.arange(order - 1)
    product = powers[(place[:, None] + place) % (order - 1)]
    product[0, :] = product[:, 0] = 0
    base = prime ** np.arange(degree)
    digits = np.arange(order)[:, None] // base % prime
    difference = (digits[:, None] - digits) % prime @ base
    return Field(powers, difference, product)


def _powers_of_x(prime: int, degree: int, low: int) -> list[int]:
    """Return 1, x, x^2, ... modulo x^degree + low, until an element comes again.

    `low` holds the lower coefficients of the modulus as digits. All non-zero elements come where
    the modulus is primitive.
    """
    top = prime ** (degree - 1)
    powers, at = [1], 1
    while True:
        carry, shifted, following = at // top, at % top * prime, 0
        for place in (prime**i for i in range(degree)):
            digit = shifted // place % prime - carry * (low // place % prime)
            following += digit % prime * place
        if following in {0, 1} or len(powers) == top * prime:
            return powers if following == 1 else []
        at = following
        powers.append(at)
