"""Which groups are validated on: against loops that look at everything anew in each step, and what must hold of any."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bie_jax.input.splits import check_stratified, describe_room, split_image_set, split_rows
from bie_jax.input.stratified import MOST, folds_of_groups, validation_groups


def _digest(seed, name):
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _layout(number):
    """Wells of several plates: labels of one to nine wells, some wells unlabeled, wells of one to four images."""
    rng = np.random.default_rng(number)
    rows = []
    for label in range(rng.integers(2, 9)):
        for well in range(rng.integers(1, 10)):
            name = f"gene{label}" if rng.random() > 0.1 else ""
            plate = f"p{rng.integers(3)}"
            rows += [(plate, f"A{label:02d}{well}", site, name) for site in range(rng.integers(1, 5))]
    table = pd.DataFrame(rows, columns=["plate", "well", "site", "label"])
    if number % 3 == 0:  # groups of several labels
        table["label"] = [label if rng.random() > 0.2 else f"gene{rng.integers(3)}" for label in table["label"]]
    return table


def _counted(table, by=("plate", "well")):
    images = {}
    for row in table.itertuples():
        of_group = images.setdefault("/".join(getattr(row, key) for key in by), {})
        of_group[row.label] = of_group.get(row.label, 0) + 1
    return images


def _by_loops(images, fraction, seed):
    """The rule of `validation_groups`, with nothing kept from one step to the next."""
    groups = sorted(images, key=lambda group: _digest(seed, group))
    labels = sorted({label for of in images.values() for label in of}, key=lambda label: _digest(seed, label))
    total = sum(sum(of.values()) for of in images.values())
    chosen = []

    def holds(label):
        return [group for group in groups if label in images[group]]

    def would_strip(group):
        for label in images[group]:
            training = [other for other in holds(label) if other not in [*chosen, group]]
            if label and len(holds(label)) > 1 and not training:
                return True
        return False

    def size(some):
        return sum(sum(images[group].values()) for group in some)

    for label in labels:
        if not label or len(holds(label)) < 2 or set(holds(label)) & set(chosen):
            continue
        for group in holds(label):
            room = size(chosen) < fraction * total or size([*chosen, group]) <= MOST * (fraction * total)
            if room and not would_strip(group):
                chosen.append(group)
                break
    while size(chosen) < fraction * total:
        behind = []
        for label in labels:
            free = [group for group in holds(label) if group not in chosen and not would_strip(group)]
            has = sum(images[group].get(label, 0) for group in chosen)
            owes = fraction * sum(of.get(label, 0) for of in images.values())
            if free:
                behind.append((owes - has, -labels.index(label), free[0]))
        if not behind:
            break
        chosen.append(max(behind)[2])
    return chosen


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.6])
def test_groups_are_those_of_a_plain_loop(fraction):
    for number in range(12):
        images = _counted(_layout(number))
        assert validation_groups(images, fraction, number) == _by_loops(images, fraction, number), number


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_what_holds_of_every_division(fraction):
    for number in range(40):
        table = _layout(number)
        wells = table["plate"] + "/" + table["well"]
        train, val = split_rows(table, "well", number, fraction, stratify_by="label")
        assert sorted([*train, *val]) == list(range(len(table)))
        assert not set(wells[train]) & set(wells[val])
        spread = wells[table["label"] != ""].groupby(table["label"]).nunique()
        several = set(spread.index[spread > 1])
        assert several <= set(table["label"][train])
        # For a label that is not validated on there was no room, or each of its wells is another label's last.
        largest = wells.value_counts().max()
        if several - set(table["label"][val]):
            assert number % 3 == 0 or len(val) + largest > MOST * fraction * len(table)
        assert len(val) <= max(MOST * fraction * len(table), fraction * len(table) + largest)
        last = {label for label in several if wells[train][table["label"][train] == label].nunique() == 1}
        reached = len(val) >= fraction * len(table)
        assert reached or all(set(table["label"][train][wells[train] == well]) & last for well in set(wells[train]))


def test_every_label_of_two_wells_is_on_both_sides_where_there_is_room():
    """Controls with many wells beside siRNAs with three of each: a tenth, as asked, or a well of each."""
    rows = [("p0", f"C{well:02d}", "control") for well in range(60)]
    rows += [("p0", f"S{gene}{well}", f"gene{gene}") for gene in range(7) for well in range(3)]
    table = pd.DataFrame(rows, columns=["plate", "well", "label"]).assign(site=0)
    for seed in range(10):
        train, val = split_rows(table, "well", seed, 0.1, stratify_by="label")
        assert set(table["label"][train]) == set(table["label"][val]) == set(table["label"])
        assert len(val) == 9  # a tenth of 81, rounded up
        assert (table["label"][val] == "control").sum() == 2  # what is left behind one of each of eight
    data = SimpleNamespace(num_folds=0, stratify_by="label", split_by="well", val_fraction=0.1)
    assert describe_room(data, table, train, val) == []


def test_labels_without_room_are_named():
    """Two wells of each of ten labels: half of the images would be validated on, and a fifth is."""
    table = pd.DataFrame({"plate": "p", "well": [f"A{i:02d}" for i in range(20)], "site": 0})
    table["label"] = [f"gene{i // 2}" for i in range(20)]
    train, val = split_rows(table, "well", 0, 0.1, stratify_by="label")
    assert len(val) == 4
    assert table["label"][val].nunique() == 4
    data = SimpleNamespace(num_folds=0, stratify_by="label", split_by="well", val_fraction=0.1)
    (note,) = describe_room(data, table, train, val)
    absent = sorted(set(table["label"]) - set(table["label"][val]))
    assert note.startswith(
        f"data.stratify_by='label': none of {', '.join(absent)} is validated on, for which data.val_f"
    )
    alone = table.assign(label=[f"gene{i}" for i in range(20)])  # a label of one well cannot be on both sides
    assert describe_room(data, alone, *split_rows(alone, "well", 0, 0.1, stratify_by="label")) == []


@pytest.mark.parametrize("num_folds", [0, 3])
def test_the_order_of_the_images_changes_nothing(num_folds):
    for number in range(6):
        table = _layout(number)
        mixed = table.sample(frac=1, random_state=number)
        sides = []
        for one in (table, mixed.reset_index(drop=True)):
            _, val = split_rows(one, "well", 0, 0.2, num_folds=num_folds, fold=0, stratify_by="label")
            sides.append(sorted(one.iloc[val].itertuples(index=False, name=None)))
        assert sides[0] == sides[1]


def _as_it_was(table, seed, fraction, num_folds, fold):
    """Runs begun before labels were looked at go on with this."""
    wells = table["plate"] + "/" + table["well"]
    sizes = wells.value_counts()
    names = sorted(sizes.index, key=lambda name: _digest(seed, name))
    if num_folds:
        filled, validated = [0] * num_folds, []
        for name in names:
            emptiest = filled.index(min(filled))
            filled[emptiest] += sizes[name]
            validated += [name] * (emptiest == fold)
    else:
        validated, before = [], 0
        for name in names:
            validated += [name] * int(before < fraction * len(table))
            before += sizes[name]
    return np.flatnonzero(wells.isin(validated))


@pytest.mark.parametrize("num_folds", [0, 2, 3])
def test_without_labels_the_division_is_what_it_was(num_folds):
    for number in range(10):
        table = _layout(number)
        expected = _as_it_was(table, number, 0.2, num_folds, num_folds // 2)
        for stratify_by, changed in (("", table), ("label", table.assign(label=""))):
            _, val = split_rows(changed, "well", number, 0.2, num_folds, num_folds // 2, stratify_by=stratify_by)
            np.testing.assert_array_equal(val, expected)


def test_labels_are_spread_over_folds():
    for number in range(20):
        images = _counted(_layout(number))
        found = folds_of_groups(images, 3, number)
        assert set(found) == set(images)
        # By loops: where its labels are fewest, then where least is.
        placed = {}
        for group in sorted(images, key=lambda group: _digest(number, group)):
            costs = []
            for fold in range(3):
                here = [other for other, place in placed.items() if place == fold]
                crowded = 0.0
                for label in sorted(images[group]):
                    has = sum(images[other].get(label, 0) for other in here)
                    crowded += has / sum(of.get(label, 0) for of in images.values())
                costs.append((crowded, sum(sum(images[other].values()) for other in here), fold))
            placed[group] = min(costs)[2]
        assert found == placed
        if number % 3:  # of groups with one label each
            for label in {label for of in images.values() for label in of}:
                wells = [group for group in images if label in images[group]]
                assert len({found[group] for group in wells}) == min(3, len(wells))


def test_plates_that_hold_every_label_are_taken_whole():
    rows = [(f"p{plate}", f"A{well:02d}", f"gene{well}") for plate in range(6) for well in range(5)]
    table = pd.DataFrame(rows, columns=["plate", "well", "label"]).assign(site=0)
    _, val = split_rows(table, "plate", 0, 0.1, stratify_by="label")
    assert table["plate"][val].nunique() == 1


def test_the_configured_column_decides_and_must_be_of_some_set():
    table = _layout(1).assign(gene=lambda table: table["label"])
    data = SimpleNamespace(
        split_by="well", val_fraction=0.3, num_folds=0, fold=0, held_out=("p1",), held_out_by="plate"
    )
    data.stratify_by = "gene"
    config = SimpleNamespace(data=data, train=SimpleNamespace(seed=3))
    rest = np.flatnonzero(table["plate"] != "p1")
    alone = split_rows(table.iloc[rest].reset_index(drop=True), "well", 3, 0.3, stratify_by="label")
    for found, expected in zip(split_image_set(config, SimpleNamespace(metadata=table)), alone, strict=True):
        np.testing.assert_array_equal(found, rest[expected])
    check_stratified(data, [_layout(0), table])
    check_stratified(SimpleNamespace(stratify_by=""), [table])
    with pytest.raises(ValueError, match=r"data.stratify_by='gene' is no column; there are plate, .*label; '' is poss"):
        check_stratified(data, [_layout(0)])


def test_another_process_divides_alike():
    """Whatever its hash of strings, on which no order may depend."""
    images = _counted(_layout(3))
    code = (
        "import json, sys; from bie_jax.input.stratified import folds_of_groups, validation_groups; "
        "images = json.load(sys.stdin); "
        "print(json.dumps([validation_groups(images, 0.2, 1), folds_of_groups(images, 3, 1)]))"
    )
    expected = [validation_groups(images, 0.2, 1), folds_of_groups(images, 3, 1)]
    for hashing in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(images),
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == expected
