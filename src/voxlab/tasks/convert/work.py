"""The pipeline of `task=convert`: read ahead, translate on the device, write behind; resume unit by unit."""

import logging
import platform
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from voxlab import parquet, storage
from voxlab.codecs.translate import Translated
from voxlab.data.voiceassistant import BadFile
from voxlab.errors import UserError
from voxlab.parallel import Ranks, barrier, gather, side_threads, split_work
from voxlab.parquet import Source, Unit
from voxlab.progress import BulkProgress
from voxlab.tasks.convert.units import Conversion, Loaded

log = logging.getLogger(__name__)

# One unit is being read and one written while a third is on the device: more would only hold memory.
_READ_AHEAD, _WRITE_BEHIND = 1, 1


@dataclass
class Work:
    """Everything one rank needs to do its share, and what it has done."""

    conversion: Conversion
    out: Path
    settings: dict[str, Any]
    sources: list[Source]
    units: dict[str, list[Unit]]
    ranks: Ranks
    rows_done: int = 0
    samples_done: int = 0
    seconds: float = 0.0
    damaged: list[BadFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fingerprint = storage.fingerprint(self.settings)

    def open_folder(self, *, restart: bool) -> None:
        """Make the output folder ours: check what is in it, sweep up after killed runs, note the settings.

        Raises:
            UserError: it holds files that this run would overwrite but did not make.
        """
        if self.ranks.is_first:
            if restart:
                self._discard()
            self._refuse_foreign_files()
            if self.out.is_dir():
                self._sweep_up()
            previous = storage.read_manifest(self.out)
            if previous is None:
                storage.atomic_write_json(self.out / storage.MANIFEST, self.manifest_head())
            elif previous.get("environment") != environment(self.ranks):
                changed = storage.differences(previous.get("environment", {}), environment(self.ranks))
                log.warning("another machine or torch began this folder; last bits may differ: %s", "; ".join(changed))
        barrier(self.ranks)

    def _sweep_up(self) -> None:
        """Delete what killed runs left: half-written files, and the parts of files that are published."""
        targets = [self.out / source.name for source in self.sources]
        parts = [self.out / parquet.STATE / source.name for source in self.sources]
        storage.remove_temporaries([self.out, *(target.parent for target in targets), *parts])
        for source in self.sources:
            if self.is_published(source):
                parquet.delete_parts(self.out, source.name)

    def manifest_head(self) -> dict[str, Any]:
        """Return the part of the manifest that is known before any row is done."""
        return {
            "schema_version": 1,
            "task": "convert",
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "environment": environment(self.ranks),
        }

    def _discard(self) -> None:
        """Delete what earlier runs made here, files that this run would not write included; nothing else."""
        manifest = storage.read_manifest(self.out) or {}
        for name in {*manifest.get("files", {}), *(source.name for source in self.sources)}:
            parquet.delete_parts(self.out, name)
            if parquet.read_stamp(self.out / name) is not None:
                (self.out / name).unlink()
        (self.out / storage.MANIFEST).unlink(missing_ok=True)

    def _refuse_foreign_files(self) -> None:
        for source in self.sources:
            path = self.out / source.name
            found = parquet.read_stamp(path)
            if path.exists() and (found is None or found["fingerprint"] != self.fingerprint):
                made = "not written by voxlab" if found is None else f"made with fingerprint {found['fingerprint']}"
                raise UserError(
                    f"{path} exists and was {made} (now {self.fingerprint}).\n"
                    "Choose another folder (out=...) or move the file away."
                )

    def is_published(self, source: Source) -> bool:
        """Tell whether the output of `source` is complete and up to date."""
        return parquet.is_current(self.out / source.name, self.fingerprint, source)

    def run(self) -> list[BadFile]:
        """Do this rank's share, then publish with the others what was shared; returns the damaged files of all."""
        files = [source for source in self.sources if not self.is_published(source)]
        # Published files leave the plan on every rank alike, so a resumed run is balanced as well.
        barrier(self.ranks)
        self._report_changed_inputs()
        rank, world = self.ranks.rank, self.ranks.world
        own = split_work([self.units[source.name] for source in files], rank, world)
        pending = [unit for unit in own if not self._is_done(unit)]
        num_whole = len(files) - len(files) % world
        started = time.monotonic()
        if pending:
            self.load_models()
        self._process(pending, files[rank:num_whole:world])
        self.seconds = time.monotonic() - started
        barrier(self.ranks)
        for source in files[num_whole:][rank::world]:
            self._publish_if_complete(source)
        barrier(self.ranks)
        return [bad for damaged in gather(self.ranks, self.damaged) for bad in damaged]

    def _report_changed_inputs(self) -> None:
        for source in self.sources:
            found = parquet.read_stamp(self.out / source.name)
            if self.ranks.is_first and found is not None and found["source"] != source.signature:
                log.warning("%s has changed since it was converted; it is converted again", source.name)

    def _is_done(self, unit: Unit) -> bool:
        return parquet.is_current(parquet.part_path(self.out, unit), self.fingerprint, unit.source)

    @property
    def rows_left(self) -> int:
        """Rows of all ranks that are still to be converted."""
        units = [unit for source in self.sources if not self.is_published(source) for unit in self.units[source.name]]
        return sum(unit.num_rows for unit in units if not self._is_done(unit))

    def load_models(self) -> None:
        """Load the weights onto this rank's device."""
        conversion = self.conversion
        for model in (conversion.source, conversion.codec, conversion.tts):
            if model is not None:
                model.to(self.ranks.device)

    def _process(self, pending: Sequence[Unit], mine: Sequence[Source]) -> None:
        """Translate the pending units while a thread reads ahead and another writes behind; publish `mine`."""
        waiting = {source.name: source for source in mine}
        missing = Counter(unit.source.name for unit in pending)
        for name in [name for name in waiting if not missing[name]]:
            self._publish_if_complete(waiting.pop(name))
        with (
            side_threads(1, "read") as reader,
            side_threads(1, "write") as writer,
            BulkProgress(sum(unit.num_rows for unit in pending), "convert") as progress,
        ):
            written: deque[Future] = deque()
            for unit, loaded in self._read_ahead(reader, pending):
                if loaded is not None:
                    written.append(
                        writer.submit(self._store, unit, loaded, self.conversion.translate(loaded), progress)
                    )
                missing[unit.source.name] -= 1
                if not missing[unit.source.name] and unit.source.name in waiting:
                    written.append(writer.submit(self._publish_if_complete, waiting.pop(unit.source.name)))
                while len(written) > _WRITE_BEHIND:
                    written.popleft().result()
            for future in written:
                future.result()

    def _read_ahead(self, reader: Executor, units: Sequence[Unit]) -> Iterator[tuple[Unit, Loaded | None]]:
        """Yield units with their rows, None for a damaged row group, which is noted."""
        futures: deque[tuple[Unit, Future]] = deque()
        for unit in units:
            futures.append((unit, reader.submit(self.conversion.load, unit)))
            if len(futures) > _READ_AHEAD:
                yield self._loaded(*futures.popleft())
        for unit, future in futures:
            yield self._loaded(unit, future)

    def _loaded(self, unit: Unit, future: Future) -> tuple[Unit, Loaded | None]:
        try:
            return unit, future.result()
        except (OSError, pa.ArrowInvalid) as error:
            self._note_damage(unit.source, f"row group {unit.row_group}: {error}")
            return unit, None

    def _note_damage(self, source: Source, reason: str) -> None:
        bad = BadFile(source.name, reason)
        log.error("%s: %s; the file is not published", bad.name, bad.reason)
        self.damaged.append(bad)

    def _store(self, unit: Unit, loaded: Loaded, results: Sequence[Translated], progress: BulkProgress) -> None:
        table, counts = self.conversion.lay_out(loaded, results, unit.num_rows)
        mark = parquet.stamp(self.fingerprint, unit.source, counts)
        parquet.write_part(parquet.part_path(self.out, unit), table, mark)
        self.rows_done += unit.num_rows
        self.samples_done += counts["num_samples"]
        progress.advance(unit.num_rows, counts["num_samples"] / self.conversion.sample_rate)

    def _publish_if_complete(self, source: Source) -> None:
        """Assemble a file whose parts are all there; one with a damaged row group stays in parts."""
        units = self.units[source.name]
        if not all(self._is_done(unit) for unit in units):
            return
        marks = [parquet.read_stamp(parquet.part_path(self.out, unit)) or {} for unit in units]
        mark = parquet.stamp(self.fingerprint, source, add_counts(marks))
        metadata = self.conversion.file_metadata(source.schema) | {parquet.STAMP: parquet.spell_stamp(mark)}
        plain = [self.conversion.audio_column] if self.conversion.audio_format == "float32" else []
        try:
            parquet.assemble(self.out, source, units, self.conversion.new_columns, metadata, plain=plain)
        except (OSError, pa.ArrowInvalid) as error:
            self._note_damage(source, f"{error}")


def add_counts(marks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the counts of several stamps."""
    errors: Counter[str] = Counter()
    for mark in marks:
        errors.update(mark.get("errors", {}))
    totals = {key: sum(mark.get(key, 0) for mark in marks) for key in ("rows", "notes", "num_samples")}
    return {**totals, "errors": dict(sorted(errors.items()))}


def environment(ranks: Ranks) -> dict[str, Any]:
    """Return what may change the last bits of a result without being a setting."""
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.startswith("cuda") else platform.machine()
    return {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads()}
