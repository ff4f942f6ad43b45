"""`manifest.csv` and `manifest.parquet` of `task=extract`: one line a token file, for people and other programs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from voxlab import storage
from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo
from voxlab.data.items import AudioItem
from voxlab.ledger import FOLDER, stats
from voxlab.sidecars.schema import VALUES_SUFFIX
from voxlab.tasks.extract.stage import TOKENS, Stage

CSV, PARQUET, STATE = "manifest.csv", "manifest.parquet", "manifest.json"
COLUMNS = ("rel_ecdc", "rel_cond", "frames", "D", "fps", "codebooks")
FURTHER_COLUMNS = ("id", "split", "num_samples", "names")


Records = Mapping[str, Mapping[str, Any]]


def write_manifest(stage: Stage, *, info: CodecInfo, container: str, encoded: Records, sidecars: Records) -> None:
    """Write both files, on the first rank; files that are up to date are left untouched, and all without rows to write.

    Columns: `rel_ecdc` and `rel_cond` (token file and sidecar, relative to the manifest's folder; `rel_cond` is empty
    without sidecar), `frames`, `D` (conditioning columns), `fps`, `codebooks`, as EncHF_Dataset names them; the Parquet
    file has also `id`, `split`, `num_samples` and `names` (of the conditioning columns).

    Args:
        stage: the surroundings; only its items are listed.
        info: the codec whose tokens are in `out/tokens`.
        container: of the token files, see `codecs.token_files`.
        encoded: records of the stage encode, by id.
        sidecars: records of the stage sidecars, by id.
    """
    if not stage.ranks.is_first or stage.dry_run:
        return
    suffix = token_files.suffix(info, container)
    done = [item for item in stage.items if "error" not in encoded.get(item.id, {"error": ""})]
    rows = [_row(item, encoded[item.id], sidecars.get(item.id), info, suffix) for item in done]
    if not rows:
        return
    state, paths = stage.out / FOLDER / STATE, [stage.out / CSV, stage.out / PARQUET]
    made_from = storage.fingerprint({"rows": rows})
    if state.is_file() and json.loads(state.read_bytes()) == {"rows": made_from, "stat": stats(paths)}:
        return
    storage.atomic_write_bytes(paths[0], _spell_csv(rows))
    storage.atomic_write_bytes(paths[1], _spell_parquet(rows))
    storage.atomic_write_json(state, {"rows": made_from, "stat": stats(paths)})


def _row(
    item: AudioItem, encoded: Mapping[str, Any], sidecar: Mapping[str, Any] | None, info: CodecInfo, suffix: str
) -> dict[str, Any]:
    good = sidecar is not None and "error" not in sidecar and sidecar["tokens"] == encoded["sha256"]
    names = sidecar["names"] if sidecar is not None and good else []
    values: Sequence[Any] = (
        f"{TOKENS}/{item.id}{suffix}",
        f"{TOKENS}/{item.id}{VALUES_SUFFIX}" if good else "",
        encoded["frames"],
        len(names),
        info.frame_rate,
        encoded["num_codebooks"],
        item.id,
        item.split,
        encoded["num_samples"],
        names,
    )
    return dict(zip((*COLUMNS, *FURTHER_COLUMNS), values, strict=True))


def _spell_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    # Python before 3.13 doesn't quote a carriage return by itself, and then can't read it.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        cells = [f"{row[name]:.12g}" if name == "fps" else row[name] for name in COLUMNS]
        (quoting if "\r" in row["rel_ecdc"] else writer).writerow(cells)
    return file.getvalue().encode()


def _spell_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("rel_ecdc", "rel_cond", "id", "split")
    types = {name: pa.string() if name in texts else pa.int64() for name in (*COLUMNS, *FURTHER_COLUMNS)}
    schema = pa.schema({**types, "fps": pa.float64(), "names": pa.list_(pa.string())})
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), file)
    return file.getvalue()
