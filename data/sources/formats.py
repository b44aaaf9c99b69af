"""Files of pixels or objects that are not read: what they are, and the way out. Nothing here opens a file."""

import dataclasses

SNIFFED = 512  # bytes, that tell formats apart

_BFCONVERT = 'convert it to OME-TIFF with Bio-Formats ("bfconvert {name} {stem}.ome.tiff") and use --layout=ome-tiff'
_RAW = 'convert it to OME-Zarr ("bioformats2raw {name} {stem}.zarr") and use --layout=ome-zarr; --level picks the size'
_SAVE = "save it as PNG or TIFF"
_SAVE_EACH = "save every picture of it as a PNG or TIFF of its own"
_ARRAY = "save its images as an array [N, H, W] or [N, H, W, C] with numpy.save and use --layout=arrays"


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file that is not read.

    Attributes:
        name: as its users call it.
        suffixes: of its files, small letters.
        way_out: what to do; {name} and {stem} are the file's.
        start: bytes that such a file holds; b"" where the suffix alone says it.
        at: where they begin.
    """

    name: str
    suffixes: tuple[str, ...]
    way_out: str
    start: bytes = b""
    at: int = 0


FORMATS = (
    # Microscopes
    Format("a Zeiss CZI", (".czi",), _BFCONVERT, b"ZISRAWFILE"),
    Format("a Zeiss ZVI", (".zvi",), _BFCONVERT),
    Format("a Zeiss LSM", (".lsm",), _BFCONVERT),
    Format("a Nikon ND2", (".nd2",), _BFCONVERT, b"\xda\xce\xbe\x0a"),
    Format("a Leica LIF", (".lif",), _BFCONVERT),
    Format("an Olympus OIB, OIF or OIR", (".oib", ".oif", ".oir"), _BFCONVERT),
    Format("a DeltaVision stack", (".dv", ".r3d"), _BFCONVERT),
    Format("a MetaMorph stack", (".stk", ".nd"), _BFCONVERT),
    Format("an Opera Flex", (".flex",), _BFCONVERT),
    Format("a Cellomics C01 or DIB", (".c01", ".dib"), _BFCONVERT),
    Format("an Imaris IMS", (".ims",), _BFCONVERT),
    Format("an ICS", (".ics", ".ids"), _BFCONVERT),
    # Slides
    Format("an Olympus VSI", (".vsi",), _RAW),
    Format("an Aperio SVS", (".svs",), _RAW),
    Format("a Hamamatsu NDPI", (".ndpi",), _RAW),
    Format("a MIRAX slide", (".mrxs",), _RAW),
    Format("a Leica SCN", (".scn",), _RAW),
    Format("a Ventana BIF", (".bif",), _RAW),
    Format("an Akoya QPTIFF", (".qptiff",), _RAW),
    # Medicine, electron microscopy, astronomy
    Format("a DICOM", (".dcm", ".dicom"), _BFCONVERT, b"DICM", at=128),
    Format("a NIfTI", (".nii", ".nii.gz"), _BFCONVERT),
    Format("an MRC", (".mrc",), _BFCONVERT),
    Format("a FITS", (".fits",), _BFCONVERT, b"SIMPLE  ="),
    # Pictures and films
    Format("a JPEG 2000", (".jp2", ".j2k", ".jpx"), _SAVE, b"\0\0\0\x0cjP  \r\n\x87\n"),
    Format("a GIF", (".gif",), _SAVE_EACH, b"GIF8"),
    Format("a BMP", (".bmp",), _SAVE),
    Format("a WebP", (".webp",), _SAVE_EACH, b"WEBPVP8", at=8),
    Format("an AVI film", (".avi",), _SAVE_EACH, b"AVI LIST", at=8),
    Format("a film", (".mp4", ".mov", ".mkv", ".webm", ".wmv", ".mpg"), _SAVE_EACH),
    # Arrays
    Format("an HDF5", (".h5", ".hdf5", ".hdf"), f"read it with h5py, {_ARRAY}", b"\x89HDF\r\n\x1a\n"),
    Format("a MATLAB file", (".mat",), f"read it with scipy.io.loadmat (h5py from version 7.3 on), {_ARRAY}"),
    # Objects
    Format(
        "a Cellpose result",
        ("_seg.npy",),
        "it holds pickled Python objects, and nothing is unpickled: save its array `masks` as a TIFF, in Cellpose or, "
        "if you trust the file, with tifffile.imwrite('{stem}_masks.tif', numpy.load('{name}', allow_pickle=True)"
        ".item()['masks']), and give the folder with --layout=folder --kind=shapes --mask=labels",
    ),
    Format(
        "GeoJSON",
        (".geojson",),
        "export label images from QuPath as TIFF and give their folder: --layout=folder --kind=shapes --mask=labels",
    ),
    Format(
        "an ImageJ region",
        (".roi",),
        'write their points as text, "x y" in each line and a blank line between two (Python\'s roifile reads them), '
        "and use --kind=shapes --layout=contours",
        b"Iout",
    ),
)


def format_of(name: str, start: bytes = b"") -> str | None:
    """What a file is that is not read, and what to do with it, in one sentence; None: no format that is known here.

    Args:
        name: of the file, which is believed first, as programs build formats of their own on HDF5 and JPEG 2000.
        start: its first `SNIFFED` bytes; b"": not known.
    """
    lower = name.lower()
    for known in FORMATS:
        for suffix in known.suffixes:
            if lower.endswith(suffix):
                return _told(known, name, name[: -len(suffix)])
    for known in FORMATS:
        if known.start and start[known.at :].startswith(known.start):
            return _told(known, name, name.rpartition(".")[0] or name)
    return None


def _told(known: Format, name: str, stem: str) -> str:
    return f"{known.name}, which is not read; {known.way_out.format(name=name, stem=stem)}"
