"""OME-Zarr in a bucket, against moto's server, which speaks the protocol of S3 and checks who may read what."""

import logging
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import requests
import zarr
from ome_zarr.format import FormatV04, FormatV05

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError, BuildError
from data.sources import zarr_store
from data.sources.ome_zarr import index_ome_zarr

with warnings.catch_warnings():  # ome-zarr 0.18 warns of its own default arguments
    warnings.simplefilter("ignore", DeprecationWarning)
    from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata

FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}
WELLS = ("A/1", "B/2")
KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "a secret"}


def _pixels(well):
    """[C, H, W] uint16, another for each well."""
    return np.random.default_rng(WELLS.index(well)).integers(1, 65536, (2, 24, 32), np.uint16)


def _write_plate(folder, fmt):
    plate = zarr.open_group(folder, mode="w", zarr_format=fmt.zarr_format)
    write_plate_metadata(plate, ["A", "B"], ["1", "2"], list(WELLS), fmt=fmt, name="P1")
    white = {"color": "FFFFFF", "window": {"start": 0, "end": 1, "min": 0, "max": 1}}
    for well in WELLS:
        group = plate.require_group(well)
        write_well_metadata(group, [{"path": "0"}], fmt=fmt)
        write_image(
            _pixels(well),
            group.require_group("0"),
            fmt=fmt,
            axes="cyx",
            scale_factors=[2],
            scale={"c": 1.0, "y": 0.65, "x": 0.65},
            axes_units={"y": "micrometer", "x": "micrometer"},
            storage_options={"chunks": (1, 16, 16)},
            omero={"channels": [white | {"label": label} for label in ("DNA", "RNA")]},
        )


def _upload(session, folder, url, acl, private=()):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = str(path.relative_to(folder))
        headers = {"x-amz-acl": "private" if key in private else acl}
        assert session.put(f"{url}/{key}", data=path.read_bytes(), headers=headers).ok


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A server with both plates in the buckets "private" and "public"; one chunk of public/partly.zarr is private."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        for bucket in ("private", "public"):
            assert session.put(f"{address}/{bucket}").ok
        for version, fmt in FORMATS.items():
            folder = tmp_path_factory.mktemp("plates") / f"{version}.zarr"
            _write_plate(folder, fmt)
            _upload(session, folder, f"{address}/private/screens/{folder.name}", "private")
            _upload(session, folder, f"{address}/public/screens/{folder.name}", "public-read")
        _upload(session, folder, f"{address}/public/partly.zarr", "public-read", private=["A/1/0/s0/c/1/0/1"])
    yield address
    server.stop()


@pytest.fixture
def environment(monkeypatch):
    """Sets what a user sets, and nothing else of it."""
    monkeypatch.setattr(zarr_store, "RETRIES", 0)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    zarr_store._open_store.cache_clear()
    yield lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]
    zarr_store._open_store.cache_clear()
    zarr_store.open_array.cache_clear()


def _refused(store, *parts):
    with pytest.raises(BuildError) as caught:
        index_ome_zarr(store, 0)
    message = str(caught.value)
    assert "\n" not in message
    for part in (store, *parts):
        assert part in message


@pytest.mark.parametrize("version", FORMATS)
def test_a_set_is_built_from_a_bucket_with_keys(version, endpoint, environment, tmp_path):
    environment(AWS_ENDPOINT_URL=endpoint, **KEYS)
    source = f"s3://private/screens/{version}.zarr"
    main(["my_plate", f"--source={source}", f"--data-dir={tmp_path}", "--workers=1"])
    built = open_image_set("my_plate", str(tmp_path))
    assert built.channel_names == ("DNA", "RNA")
    assert built.pixel_size_um == 0.65
    assert built.metadata["well"].tolist() == ["A01", "B02"]
    assert built.metadata["source"].str.startswith(source).all()
    for row, well in enumerate(WELLS):
        np.testing.assert_array_equal(built[row], np.moveaxis(_pixels(well), 0, -1))


@pytest.mark.parametrize("version", FORMATS)
def test_a_public_bucket_needs_no_keys(version, endpoint, environment):
    environment(AWS_ENDPOINT_URL=endpoint)
    index = index_ome_zarr(f"s3://public/screens/{version}.zarr/", 0)
    assert index.ignored == ()
    for well, field in zip(WELLS, index.fields, strict=True):
        for channel, pixels in zip(("DNA", "RNA"), _pixels(well), strict=True):
            np.testing.assert_array_equal(field.planes[channel, 0, 0].read(), pixels)


@pytest.mark.parametrize("place", ["nowhere/screens/0.5.zarr", "private/screens/nothing.zarr", "private"])
def test_a_bucket_or_a_key_that_is_not_there(place, endpoint, environment):
    environment(AWS_ENDPOINT_URL=endpoint, **KEYS)
    _refused(f"s3://{place}", "there is neither zarr.json nor .zattrs, check the address")


def test_what_one_may_not_read(endpoint, environment):
    environment(AWS_ENDPOINT_URL=endpoint)
    _refused("s3://private/screens/0.5.zarr", "the server answered 403 Forbidden; check the address and your rights")


def test_a_chunk_that_one_may_not_read(endpoint, environment):
    environment(AWS_ENDPOINT_URL=endpoint)
    planes = index_ome_zarr("s3://public/partly.zarr", 0).fields[0].planes
    np.testing.assert_array_equal(planes["DNA", 0, 0].read(), _pixels("A/1")[0])
    with pytest.raises(BadInputError, match=r"s3://public/.*/A/1/0/s0: its pixels cannot be read: .* 403 Forbidden"):
        planes["RNA", 0, 0].read()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9000", "", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://a b"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_no_address(name, address, environment):
    environment(**{name: address})
    _refused("s3://public/screens/0.5.zarr", f"{name}={address!r} is no address of a server", "correct or unset it")


def test_nobody_answers_at_the_endpoint(environment):
    environment(AWS_ENDPOINT_URL="http://127.0.0.1:1", **KEYS)
    _refused("s3://public/screens/0.5.zarr", "no connection: the address is wrong, or nobody answers there")


def test_half_of_a_key(endpoint, environment):
    environment(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="somebody")
    _refused("s3://private/screens/0.5.zarr", "Missing SecretAccessKey")


class _OtherRegion(BaseHTTPRequestHandler):
    """Answers as Amazon does of a bucket that is elsewhere: moved, and not where to."""

    def do_GET(self):
        self.send_response(301)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.fixture
def other_region():
    """Address of a server that says of every bucket that it is elsewhere."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OtherRegion)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bucket_of_another_region(other_region, environment):
    environment(AWS_ENDPOINT_URL=other_region)
    _refused("s3://public/screens/0.5.zarr", "the bucket is in another region; set AWS_REGION to its own")
