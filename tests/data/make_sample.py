#!/usr/bin/env python3
"""Cuts the sample in this folder out of the larger text384-100k set.

    python3 -m venv VENV && VENV/bin/pip install 'numpy>=1.24,<3'
    VENV/bin/python tests/data/make_sample.py FOLDER_WITH_TEXT384_100K

Takes the first ROWS passages and the first QUERIES held-out queries whose source has a permissive licence
(the large set is in a seeded random order, so that its prefix is a fair sample), renumbers them from 0, and
computes the exact answers among the sample. The same input gives the same bytes.
"""

import gzip
import json
import pathlib
import sys

import numpy as np

ROWS = 4000
QUERIES = 100
TOP = 50
NAME = "text384-4k"
OUT = pathlib.Path(__file__).parent

# Each of them has its notice in licenses/.
PERMISSIVE = {
    "apache2-doc",
    "clang-14-doc",
    "llvm-14-doc",
    "nodejs-doc",
    "python-pandas-doc",
    "python-scipy-doc",
    "python-sklearn-doc",
    "python-sqlalchemy-doc",
    "python-tornado-doc",
    "python3.11-doc",
    "rust-docs",
}
# Parts of those that stand under another licence (CC-BY-SA), quote others, or are licence texts themselves.
LEFT_OUT = {
    ("rust-docs", "embedded-book"),
    ("python-sklearn-doc", "testimonials"),
    ("python3.11-doc", "license"),
}
FILTERS = {
    "filter1": {"key": "source", "match": "python-tornado-doc"},
    "filter10": {"key": "source", "match": "apache2-doc"},
    "filter50": {"key": "words", "range": {"gte": 43, "lte": 75}},
}


def read_jsonl(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_jsonl(path, rows):
    # No name and no time in the header, so that the bytes depend on the rows alone.
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as out:
        for row in rows:
            out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def usable(row):
    return row["source"] in PERMISSIVE and (row["source"], row.get("section")) not in LEFT_OUT


def take(rows, count):
    picked = [row for row in rows if usable(row)][:count]
    if len(picked) < count:
        sys.exit(f"only {len(picked)} of {count} usable rows in the input")
    origin = [row["id"] for row in picked]
    return origin, [{**row, "id": new} for new, row in enumerate(picked)]


def passes(filter_, row):
    value = row[filter_["key"]]
    if "match" in filter_:
        return value == filter_["match"]
    return filter_["range"]["gte"] <= value <= filter_["range"]["lte"]


def exact(base, queries, rows):
    """The TOP best of `rows` for each query: inner product descending, then id ascending.

    Summed in float64, where products of these values are exact and their sums nearly so: the order does not
    depend on how a library arranges a float32 sum.
    """
    rows = np.asarray(rows)
    scores = queries.astype(np.float64) @ base[rows].astype(np.float64).T
    order = np.lexsort((np.broadcast_to(rows, scores.shape), -scores), axis=1)[:, :TOP]
    return rows[order].astype(np.int32), np.take_along_axis(scores, order, axis=1).astype(np.float32)


def main(folder):
    big = pathlib.Path(folder) / "text384-100k"
    base_origin, payload = take(read_jsonl(f"{big}.payload.jsonl.gz"), ROWS)
    query_origin, query_text = take(read_jsonl(f"{big}.query.jsonl.gz"), QUERIES)
    base = np.load(f"{big}.base.f16.npy", mmap_mode="r")[base_origin]
    queries = np.load(f"{big}.query.f32.npy")[query_origin]

    np.save(OUT / f"{NAME}.base.f16.npy", base)
    np.save(OUT / f"{NAME}.query.f32.npy", queries)
    write_jsonl(OUT / f"{NAME}.payload.jsonl.gz", payload)
    write_jsonl(OUT / f"{NAME}.query.jsonl.gz", query_text)

    described = {}
    for name, filter_ in [("", None), *FILTERS.items()]:
        rows = [row["id"] for row in payload if filter_ is None or passes(filter_, row)]
        if len(rows) < TOP:
            sys.exit(f"{name} leaves {len(rows)} rows, fewer than the {TOP} that the ground truth lists")
        ids, scores = exact(base, queries, rows)
        stem = f"{NAME}.gt.{name}." if name else f"{NAME}.gt."
        np.save(OUT / f"{stem}ids.npy", ids)
        np.save(OUT / f"{stem}scores.npy", scores)
        if filter_ is not None:
            described[name] = {**filter_, "rows": len(rows), "share": len(rows) / ROWS}
    (OUT / f"{NAME}.filters.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
