"""What a peer can choose to make others work: numbers that collide."""

from __future__ import annotations


def chosen_numbers(bits: int, count: int) -> list[int]:
    """Return numbers that collide in a dictionary of 2 ** `bits` places, more than half full.

    The first ones fill places that CPython looks at one after the other (``Objects/dictobject.c``);
    each of the others comes to one of these, and then across as many of them as possible.
    """
    mask = 2**bits - 1
    path = [0]
    while len(path) <= mask:
        path.append(path[-1] * 5 + 1 & mask)
    filled = path[: count * 11 // 20]
    index_of = {place: index for index, place in enumerate(filled)}
    found = []
    for number in range(mask + 1, 32 * mask):
        place, perturb = number & mask, number
        while perturb and place in index_of:
            perturb >>= 5
            place = place * 5 + perturb + 1 & mask
        if not perturb and place in index_of:
            found.append((index_of[place], number))
    return filled + [number for _, number in sorted(found)[: count - len(filled)]]
