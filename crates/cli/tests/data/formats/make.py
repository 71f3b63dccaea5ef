"""Makes the files in this folder with the libraries that define their formats. See README.md."""

import datetime
import decimal
import pathlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent


def npy():
    rows, columns = np.mgrid[0:5, 0:4]
    floats = (rows + 0.25 * columns)
    integers = rows + 10 * columns
    for code in ["f2", "f4", "f8"]:
        np.save(here / f"{code}.npy", floats.astype(code))
    for code in ["u1", "i1", "i8"]:
        np.save(here / f"{code}.npy", integers.astype(code))
    np.save(here / "f4_big_endian.npy", floats.astype(">f4"))
    np.save(here / "f4_fortran.npy", np.asfortranarray(floats.astype("f4")))
    for version in [2, 3]:
        with open(here / f"f4_version{version}.npy", "wb") as file:
            np.lib.format.write_array(file, floats.astype("f4"), version=(version, 0))


def hdf5(name, dtype, libver, distance="angular"):
    rows, columns = np.mgrid[0:50, 0:6]
    vectors = (rows + 0.25 * columns).astype(dtype)
    with h5py.File(here / name, "w", libver=libver) as file:
        file.attrs["distance"] = distance
        file.attrs["type"] = "dense"
        # The chunks divide neither axis, as h5py's own choice often does not.
        file.create_dataset("train", data=vectors, chunks=(7, 4), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("test", data=vectors[:3])
        file.create_dataset("neighbors", data=np.array([[0, 1], [1, 0], [2, 1]], dtype="i4"))
        file.create_dataset("distances", data=np.array([[0, 1], [0, 1], [0, 1]], dtype="f4"))
        if name == "annbench.hdf5":
            file.create_dataset("flat", data=np.arange(4, dtype="f4"))
            file.create_dataset("words", data=np.array([["a", "b"]], dtype=h5py.string_dtype()))
            file.create_dataset("nan", data=np.array([[0, 1], [np.nan, 1], [0, 1]], dtype="f4"))


def deep():
    """Ten neighbours for each query, as many as are asked for by default."""
    rows, columns = np.mgrid[0:50, 0:6]
    vectors = (rows + 0.25 * columns).astype("f4")
    with h5py.File(here / "annbench_deep.hdf5", "w") as file:
        file.attrs["distance"] = "euclidean"
        file.create_dataset("train", data=vectors)
        file.create_dataset("test", data=vectors[:3])
        far = np.abs(rows[:, 0] - np.arange(3)[:, None])
        file.create_dataset("neighbors", data=np.argsort(far, axis=1, kind="stable")[:, :10].astype("i4"))
        file.create_dataset("distances", data=np.sort(far, axis=1)[:, :10] * np.float32(6) ** 0.5)


def holes():
    with h5py.File(here / "holes.hdf5", "w") as file:
        train = file.create_dataset("train", shape=(10, 4), dtype="f4", chunks=(5, 4), compression="gzip")
        train[:5] = np.arange(20).reshape(5, 4)
        file.create_dataset("zeros", data=np.zeros((10, 4), "f4"), chunks=(5, 4), compression="gzip")


def vectors_parquet():
    rows = [[float(row + column) for column in range(4)] for row in range(25)]
    whole = [[row + column for column in range(4)] for row in range(25)]
    table = pa.table({
        "id": pa.array(range(100, 125), pa.uint64()),
        "fixed": pa.array(rows, pa.list_(pa.float32(), 4)),
        "doubles": pa.array(rows, pa.list_(pa.float64())),
        "halves": pa.array([np.array(row, "f2") for row in rows], pa.list_(pa.float16())),
        "bytes": pa.array(whole, pa.list_(pa.uint8())),
        "longs": pa.array(whole, pa.large_list(pa.int64())),
    })
    pq.write_table(table, here / "vectors.parquet", row_group_size=10, compression="snappy", write_page_checksum=True)


def payload_parquet():
    moment = datetime.datetime(2026, 11, 23, 14, 53, tzinfo=datetime.timezone.utc)
    second = pa.scalar(int(moment.timestamp()))
    seconds = second.as_py()
    columns = {
        "id": pa.array([bytes.fromhex("0123456789abcdef0123456789abcdef"), bytes(16)], pa.binary(16)),
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
        "text": pa.array(["first", None]),
        "year": pa.array([2026, None], pa.int16()),
        "big": pa.array([2**63 - 1, None], pa.uint64()),
        "score": pa.array([0.5, None], pa.float32()),
        "ok": pa.array([True, None]),
        "tags": pa.array([["a", "b"], None], pa.list_(pa.string())),
        "author": pa.array(
            [{"name": "Ada", "born": datetime.date(1815, 12, 10)}, None],
            pa.struct([("name", pa.string()), ("born", pa.date32())]),
        ),
        "attributes": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        "day": pa.array([datetime.date(2026, 11, 23), None]),
        "seconds": pa.array([seconds, None], pa.timestamp("s", "UTC")),
        "millis": pa.array([seconds * 10**3 + 250, None], pa.timestamp("ms", "UTC")),
        "micros": pa.array([seconds * 10**6 + 1, None], pa.timestamp("us")),
        "nanos": pa.array([seconds * 10**9 + 1, None], pa.timestamp("ns", "UTC")),
        "price": pa.array([decimal.Decimal("12.50"), None], pa.decimal128(10, 2)),
        "clock": pa.array([datetime.time(14, 53, 0, 500_000), None], pa.time64("us")),
    }
    uuid = pa.ExtensionArray.from_storage(pa.uuid(), columns["id"])
    columns["id"] = uuid
    pq.write_table(pa.table(columns), here / "payload.parquet", compression="zstd", version="2.6")


def bad_parquet():
    good = [[0.5, 1.5]] * 3
    table = pa.table({
        "ragged": pa.array(good + [[1, 2, 3]], pa.list_(pa.float32())),
        "null_row": pa.array(good + [None], pa.list_(pa.float32())),
        "empty_row": pa.array(good + [[]], pa.list_(pa.float32())),
        "null_number": pa.array(good + [[1, None]], pa.list_(pa.float32())),
        "nan": pa.array(good + [[float("nan"), 1]], pa.list_(pa.float64())),
        "great": pa.array([[1, 2]] * 3 + [[1, 2**24 + 1]], pa.list_(pa.int32())),
    })
    pq.write_table(table, here / "bad_vectors.parquet")
    table = pa.table({
        "embedding": pa.array([[0.5], [1.5]], pa.list_(pa.float32())),
        "other": pa.array([[0.5], [1.5]], pa.list_(pa.float32())),
        "binary": pa.array([b"text", b"\xff\xfe"]),
        "nan": pa.array([0.5, float("nan")]),
        "unsigned": pa.array([0, 2**63], pa.uint64()),
        "interval_free": pa.array([1, 2]),
    })
    pq.write_table(table, here / "bad_payload.parquet")


npy()
hdf5("annbench.hdf5", "f4", "earliest")
hdf5("annbench_latest.hdf5", "f4", "latest")
hdf5("annbench_f8.hdf5", ">f8", "earliest")
hdf5("jaccard.hdf5", "f4", "earliest", "jaccard")
deep()
holes()
vectors_parquet()
payload_parquet()
bad_parquet()
