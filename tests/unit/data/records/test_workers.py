"""Readers that die or do not end. Parts are written by real processes, which kill themselves."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bie_jax.input.image_set import open_image_set
from data import limits
from data.errors import BuildError
from data.fields.crops import Whole
from data.fields.field_set import build_fields
from data.fields.index import Field, Index
from data.fields.maker import FieldMaker
from data.limits import GB, Limits, reading, using
from data.records import workers
from data.records.writer import SHARD_BYTES

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A plane: a file whose content says what becomes of the process that reads it."""

    path: Path

    @property
    def source(self):
        return str(self.path)

    def identity(self):
        return self.source

    def files(self):
        return (self.path,)

    def read(self):
        with reading(self.path, 0):
            what = self.path.read_text()
            if what == "once":
                self.path.write_text("1")
            if what in ("segfault", "once"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if what == "out of memory":
                os.kill(os.getpid(), signal.SIGKILL)
            while what == "endless":
                time.sleep(0.1)
        return np.full((16, 16), int(what), np.uint8)


def _build(tmp_path, contents, num_workers=1, skip_bad=True):
    """Two files in each field, one for each channel."""
    fields = []
    for site, content in enumerate(contents, start=1):
        planes = {}
        for channel, what in (("a", str(site)), ("b", content)):
            planes[channel, 0, 0] = Deadly(tmp_path / f"{channel}{site}")
            planes[channel, 0, 0].path.write_text(what)
        fields.append(Field("P", "B02", site, planes))
    index = Index(("a", "b"), tuple(fields), {}, None, ())
    maker = FieldMaker(("a", "b"), "max", "each", Whole(), "", None)
    bad = tmp_path / "bad.csv" if skip_bad else None
    build_fields(
        "mine", index, maker, ("a", "b"), tmp_path / "sets", num_workers=num_workers, skip_bad=bad, text="", notes={}
    )
    read = open_image_set("mine", str(tmp_path / "sets"))
    skipped = [] if bad is None else bad.read_text().splitlines()[1:]
    return read.images(range(len(read)))[:, 0, 0, 1].tolist(), skipped


def test_a_file_that_kills_its_reader_is_listed_and_the_rest_is_built(tmp_path, capsys):
    """The first field too, which says what all the others must be; and two in one shard."""
    values, skipped = _build(tmp_path, ["segfault", "20", "out of memory", "40"])
    assert values == [20, 40]
    assert skipped == [
        f'{tmp_path}/b1,"plate P, well B02, site 1",the reader died of it (SIGSEGV)',
        f'{tmp_path}/b3,"plate P, well B02, site 3",the reader died of it (SIGKILL)',
    ]
    assert "4/4" in capsys.readouterr().err.split("\r")[-1]


def test_a_reader_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FILE_SECONDS", 3)
    values, skipped = _build(tmp_path, ["10", "endless"])
    assert values == [10]
    assert skipped == [f'{tmp_path}/b2,"plate P, well B02, site 2",the reader did not come to an end within 3 s']


def test_without_skip_bad_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("data.records.writer.SHARD_BYTES", 1)
    with pytest.raises(BuildError) as caught:
        _build(tmp_path, ["10", "20", "segfault"], num_workers=2, skip_bad=False)
    assert str(caught.value) == (
        f"{tmp_path}/b3: the reader died of it (SIGSEGV) (plate P, well B02, site 3); --skip-bad=FILE.csv leaves it out"
    )
    assert SHARD_BYTES > 1


def test_a_worker_that_something_else_has_killed_costs_nothing(tmp_path, monkeypatch):
    """As the system does when memory is short: read alone, the same file is whole."""
    monkeypatch.setattr("data.records.writer.SHARD_BYTES", 1)
    values, _ = _build(tmp_path, ["10", "20", "once", "40"], num_workers=2, skip_bad=False)
    assert values == [10, 20, 1, 40]


def test_none_is_left(tmp_path):
    with pytest.raises(BuildError, match=r"none of the 1 fields gives an example; .*b1: the reader died of it"):
        _build(tmp_path, ["segfault"])


@dataclasses.dataclass(frozen=True)
class _Telling:
    note: Path

    def without(self, number, source, problem):
        raise AssertionError


def _tell(job, tick):
    job.note.with_suffix(".json").write_text(json.dumps(limits.current().most_bytes))
    tick()


def test_limits_reach_every_process(tmp_path):
    jobs = [_Telling(tmp_path / str(number)) for number in range(2)]
    with using(Limits(7 * GB, 1)):
        workers.run(_tell, jobs, 2, lambda count: None, isolated=False)
        assert workers.alone(limits.current, note=tmp_path / "note") == Limits(7 * GB, 1)
    assert [json.loads(job.note.with_suffix(".json").read_text()) for job in jobs] == [7 * GB] * 2
