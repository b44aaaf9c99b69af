"""Which groups of images are validated on, so that each label has groups on both sides.

A label is looked at to place whole groups, and for nothing else: an encoder that is validated on wells of every class
can be scored on what it never saw. Groups and labels are ordered by a hash of their names and a seed, which is the same
on every machine and for every version of numpy, and does not depend on the order of the images.

Greedy, as iterative stratification is (Sechidis et al. 2011, "On the stratification of multi-label data"): a group may
hold several labels, as plates do.
"""

import hashlib
import heapq
from collections.abc import Iterable, Mapping

# Of the share that is asked for: for a label's sake more is validated on, but no more than this times as much.
MOST = 2

# Group -> label -> images; the label "" is of images that have none.
Images = Mapping[str, Mapping[str, int]]


def in_order(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order of chance, the same everywhere."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def validation_groups(images: Images, val_fraction: float, seed: int) -> list[str]:
    """Groups to validate on.

    First every label of two groups or more gets one, as far as `MOST` has room for it. Then groups follow, each of the
    label that is furthest behind its share, until the fraction is reached. The last group of a label that has two or
    more stays in training, even if the fraction is then missed. Where there are no labels these are the first groups in
    their order.

    Args:
        images: see `Images`.
        val_fraction: share of all images, in (0, 1).
        seed: of the order.
    """
    groups: dict[str, list[str]] = {}
    for group in in_order(images, seed):
        for label in images[group]:
            groups.setdefault(label, []).append(group)
    count = {label: sum(images[group][label] for group in of_label) for label, of_label in groups.items()}
    left = {label: len(of_label) for label, of_label in groups.items()}  # groups in training
    has = dict.fromkeys(count, 0)  # images to validate on
    wanted = val_fraction * sum(count.values())
    chosen: dict[str, None] = {}
    taken = 0

    def is_free(group: str) -> bool:
        return group not in chosen and all(
            left[label] > 1 or len(groups[label]) == 1 for label in images[group] if label
        )

    def take(group: str) -> None:
        nonlocal taken
        chosen[group] = None
        for label, number in images[group].items():
            taken += number
            has[label] += number
            left[label] -= 1

    def behind(label: str) -> float:
        return val_fraction * count[label] - has[label]

    labels = in_order(groups, seed)
    for label in labels:
        if not label or len(groups[label]) == 1 or left[label] < len(groups[label]):
            continue
        for group in groups[label]:
            fits = taken < wanted or taken + sum(images[group].values()) <= MOST * wanted
            if fits and is_free(group):
                take(group)
                break

    # The label that is furthest behind first. What has changed since it was entered is entered anew; a group that is
    # not free will not become so.
    queue = [(-behind(label), place, label) for place, label in enumerate(labels)]
    heapq.heapify(queue)
    remaining = {label: iter(of_label) for label, of_label in groups.items()}
    while taken < wanted and queue:
        before, place, label = heapq.heappop(queue)
        if before == -behind(label):
            group = next((group for group in remaining[label] if is_free(group)), None)
            if group is None:
                continue
            take(group)
        heapq.heappush(queue, (-behind(label), place, label))
    return list(chosen)


def folds_of_groups(images: Images, num_folds: int, seed: int) -> dict[str, int]:
    """Group -> fold: each group, in their order, goes where its labels are fewest so far, and of such folds to the
    emptiest. A label of two groups or more is in two folds or more; where there are no labels folds are filled evenly.

    Args:
        images: see `Images`; as many groups as folds, or more.
        num_folds: k.
        seed: of the order.
    """
    count: dict[str, int] = {}
    for of_group in images.values():
        for label, number in of_group.items():
            count[label] = count.get(label, 0) + number
    filled = [0] * num_folds
    of_label = {label: [0] * num_folds for label in count}
    found = {}
    for group in in_order(images, seed):
        crowded = [
            sum(of_label[label][fold] / count[label] for label in sorted(images[group])) for fold in range(num_folds)
        ]
        fold = min(range(num_folds), key=lambda fold: (crowded[fold], filled[fold]))
        found[group] = fold
        for label, number in images[group].items():
            filled[fold] += number
            of_label[label][fold] += number
    return found
