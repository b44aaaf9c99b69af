"""Which shards are whose, and what parts of one set must agree in."""

import itertools
import threading

import pytest

from data.errors import BuildError
from data.records.share import Share, agree, refuse_unfinished, shards_to_make


@pytest.mark.parametrize("shards", [1, 2, 7, 64, 500])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 501])
def test_every_shard_is_in_one_share(shards, count):
    shares = [Share(number, count).shards(shards) for number in range(1, count + 1)]
    assert list(itertools.chain(*shares)) == list(range(shards))
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def test_what_a_process_makes():
    assert shards_to_make("all", 5) == range(5)
    assert len(shards_to_make("none", 5)) == 0
    assert shards_to_make(Share(2, 2), 5) == range(2, 5)


def test_the_first_part_writes_down_what_was_asked(tmp_path):
    building = tmp_path / ".building"
    assert agree(building, "all", {}) is None
    assert not building.exists()
    assert agree(building, Share(2, 4), {"--source": "a", "--crop": "8"}) == 4
    for work in (Share(1, 4), "all", "none"):
        assert agree(building, work, {"--crop": "8", "--source": "a"}) == 4
    for work in (Share(1, 4), "all", "none"):
        with pytest.raises(
            BuildError, match="begun with --crop=8, --source=a, and here is no --crop, --source=b; type"
        ):
            agree(building, work, {"--source": "b"})
    with pytest.raises(BuildError, match="begun with no --illumination, and here is --illumination;"):
        agree(building, "none", {"--source": "a", "--crop": "8", "--illumination": ""})
    with pytest.raises(
        BuildError, match=r"--part=1/5: the set was begun in 4 parts, .*; type --part=1/4 and so on, or"
    ):
        agree(building, Share(1, 5), {"--source": "a", "--crop": "8"})
    assert [path.name for path in building.iterdir()] == ["parts.json"]


def test_of_several_that_begin_at_once_one_is_the_first(tmp_path):
    """Ten ask for ten things, ten times: one is agreed to, and the other nine are told so."""
    for turn in range(10):
        barrier, agreed, refused = threading.Barrier(10), [], []

        def begin(number, folder=tmp_path / str(turn), barrier=barrier, agreed=agreed, refused=refused):
            barrier.wait()
            try:
                agree(folder, Share(1, 10), {"--crop": str(number)})
                agreed.append(number)
            except BuildError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(agreed) == 1
        assert len(refused) == 9
        assert all(f"begun with --crop={agreed[0]}," in message for message in refused)


def test_unfinished_parts_are_named_with_their_commands():
    refuse_unfinished({}, 8, 4)
    problems = {0: "not there", 1: "not there", 7: "damaged: records is missing"}
    with pytest.raises(BuildError) as caught:
        refuse_unfinished(problems, 8, 4)
    assert str(caught.value) == (
        "--join: 5 of 8 shards are there; unfinished: 1/4 (2 shards, not there), 4/4 (1 shard, damaged: records is "
        "missing); the same command with --part=1/4, --part=4/4 in the place of --join goes on with that"
    )
    with pytest.raises(BuildError, match="not begun in parts; the same command without --join makes the rest"):
        refuse_unfinished(problems, 8, None)
