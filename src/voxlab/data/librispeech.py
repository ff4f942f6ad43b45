"""LibriSpeech: 1000 hours of read English, 16 kHz, in folders of subsets, speakers and chapters with transcripts.

Layout, sizes and counts: README.TXT of the corpus and https://www.openslr.org/12 (CC BY 4.0). Other corpora in this
layout, such as Mini LibriSpeech, are read as well.
"""

import difflib
import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from voxlab.data import archives, splits
from voxlab.data.items import AudioItem
from voxlab.data.librispeech_files import Findings, Metadata, entries, holds_speakers, read_sexes, scan
from voxlab.data.names import counted
from voxlab.data.recordings import read_headers
from voxlab.data.sample.librispeech import write_sample
from voxlab.errors import UserError

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
_FOLDER = "LibriSpeech"
_SPLITS = ("speaker", "utterance", "subset", "official")
_OFFICIAL = {"train": "train", "dev": "validation", "test": "test"}
_FRACTIONS = {"train": 0.95, "validation": 0.05}


class Archive(NamedTuple):
    """What is published of a subset."""

    size: str
    utterances: int
    sha256: str


# Sizes: https://www.openslr.org/12. Checksums: torchaudio 2.9, torchaudio/datasets/librispeech.py.
ARCHIVES = {
    "dev-clean": Archive("337 MB", 2_703, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": Archive("314 MB", 2_864, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": Archive("346 MB", 2_620, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": Archive("328 MB", 2_939, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": Archive("6.3 GB", 28_539, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": Archive("23 GB", 104_014, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": Archive("30 GB", 148_688, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}


@dataclass(frozen=True, kw_only=True)
class LibriSpeech:
    """The recordings of some subsets, with speaker, sex, chapter, utterance and text as metadata.

    The id of a recording is its path below the folder LibriSpeech without the suffix.

    Args:
        source: "disk" reads `root`; "sample" writes a small synthetic corpus beside it (`<root>-sample`) and reads
            that; "download" fetches the subsets that are missing from `url` into `root` first.
        root: the folder LibriSpeech, or the one that holds it.
        subsets: names of subsets; None: all that are there.
        splits: "speaker" (no speaker is in two splits) or "utterance", both by `split_fractions`; "subset" (a split
            for each: dev-clean is dev_clean) or "official" (train-... is train, dev-... validation, test-... test).
        split_fractions: split -> share of the speakers or utterances; None: {"train": 0.95, "validation": 0.05}.
        split_seed: another number deals anew.
        url: folder of the archives; OpenSLR's mirrors have the same files.
    """

    source: str = "disk"
    root: str = "data/LibriSpeech"
    subsets: Sequence[str] | None = ("train-clean-100",)
    splits: str = "speaker"
    split_fractions: Mapping[str, float] | None = None
    split_seed: int = 0
    url: str = "https://www.openslr.org/resources/12"

    @property
    def folder(self) -> Path:
        """The folder that holds the subsets: the root, LibriSpeech in it, or what is nearest to that in the sample."""
        root = Path(self.root)
        if self.source == "sample":
            return root.with_name(f"{root.name}-sample") / _FOLDER
        if root.name in ARCHIVES and not (root / root.name).is_dir():
            return root.parent
        return root / _FOLDER if (root / _FOLDER).is_dir() else root

    def prepare(self) -> None:
        """Write the sample or download the archives, when asked to. To be called on one rank only.

        Raises:
            UserError: `source` is unknown, there is no such archive, or it can't be fetched.
        """
        if self.source == "sample":
            write_sample(self.folder)
            log.info("sample corpus: %s", self.folder)
        elif self.source == "download":
            self._download()
        elif self.source != "disk":
            raise UserError(f"data.source={self.source}: choose disk, sample or download.")

    def items(self) -> list[AudioItem]:
        """Return all recordings, sorted by id, without opening them; what is odd about them goes to the log.

        Raises:
            UserError: wrong settings, or a subset that is not there or has no recording.
        """
        items, findings = self._read()
        for finding in findings:
            log.warning("%s: %s", self.folder, finding)
        return items

    def check(self) -> list[str]:
        """Report everything that is wrong with the subsets, one line a finding; reads the headers of all files."""
        try:
            items, findings = self._read()
        except UserError as error:
            return [str(error)]
        headers = dict(zip((item.id for item in items), read_headers(items), strict=True))
        problems: Findings = defaultdict(list)
        for item_id, header in headers.items():
            if isinstance(header, str):
                problems["{} files can't be read"].append(f"{item_id} ({header})")
            elif (header.sample_rate, header.channels) != (SAMPLE_RATE, 1):
                what = f"{header.sample_rate} Hz, {header.channels} channels"
                problems["{} files are not 16000 Hz, 1 channel"].append(f"{item_id} ({what})")
        found = Counter(item.metadata["subset"] for item in items)
        published = {subset: ARCHIVES[subset].utterances for subset in sorted(found) if subset in ARCHIVES}
        counts = [
            f"{subset}: {found[subset]} of {count} utterances are here"
            for subset, count in published.items()
            if found[subset] != count and self.source != "sample"
        ]
        return [*findings, *_lines(problems), *counts]

    def _read(self) -> tuple[list[AudioItem], list[str]]:
        self._check_settings()
        problems: Findings = defaultdict(list)
        base = self.folder
        sexes = read_sexes(base, problems)
        found: list[tuple[str, str, Metadata]] = []
        for subset in self._present():
            recordings = list(scan(base, subset, problems))
            if not recordings:
                raise UserError(f"no recording under {base / subset}: expected 19/198/19-198-0000.flac and so on.")
            found += recordings
        speakers = {str(metadata["speaker"]) for _, _, metadata in found}
        if sexes is not None:
            problems["{} speakers are not in SPEAKERS.TXT"] += sorted(speakers - sexes.keys())
        split_of = self._splits({item_id: metadata for item_id, _, metadata in found})
        wanted = self._fractions if self.splits in ("speaker", "utterance") else {}
        missing = sorted(set(wanted) - set(split_of.values()))
        unmet = [f"no {self.splits} falls to the split {split} ({len(speakers)} speakers in all)" for split in missing]
        items = [
            AudioItem(
                item_id,
                base / f"{item_id}.flac",
                split_of[item_id],
                stamp,
                {**metadata, "sex": (sexes or {}).get(str(metadata["speaker"]))},
            )
            for item_id, stamp, metadata in found
        ]
        return sorted(items, key=lambda item: item.id), [*_lines(problems), *unmet]

    def _check_settings(self) -> None:
        if isinstance(self.subsets, str) or (self.subsets is not None and not self.subsets):
            raise UserError(f"data.subsets={self.subsets or '[]'}: give a list, for example '[dev-clean, test-clean]'.")
        if self.splits not in _SPLITS:
            raise UserError(f"data.splits={self.splits}: choose {', '.join(_SPLITS)}.")
        if self.split_fractions is not None and self.splits not in ("speaker", "utterance"):
            raise UserError(
                f"data.split_fractions={dict(self.split_fractions)} goes with data.splits=speaker or utterance, not "
                f"{self.splits}."
            )

    @property
    def _fractions(self) -> Mapping[str, float]:
        return _FRACTIONS if self.split_fractions is None else self.split_fractions

    def _splits(self, found: Mapping[str, Metadata]) -> dict[str, str]:
        if self.splits == "subset":
            return splits.by_folder({item_id: item_id for item_id in found})
        if self.splits == "official":
            return {item_id: _official(str(metadata["subset"])) for item_id, metadata in found.items()}
        groups = {item_id: str(metadata["speaker"]) for item_id, metadata in found.items()}
        if self.splits == "utterance":
            groups = {item_id: item_id for item_id in found}
        return splits.by_fraction(groups, self._fractions, self.split_seed)

    # ---- which subsets ---------------------------------------------------------------------------------------------

    def _present(self) -> list[str]:
        """Return the wanted subsets, which all are there."""
        there = self._found_subsets()
        wanted = there if self.subsets is None else sorted(set(self.subsets))
        missing = [subset for subset in wanted if subset not in there]
        if missing or not wanted:
            raise UserError(self._explain_missing(missing, there))
        return wanted

    def _found_subsets(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        folders = [entry for entry in entries(self.folder) if entry.is_dir()]
        return [entry.name for entry in folders if entry.name in ARCHIVES or holds_speakers(entry)]

    def _explain_missing(self, missing: Sequence[str], there: Sequence[str]) -> str:
        if self.source == "sample" and not there:
            return f"{self.folder} holds no sample corpus yet; a run without dry_run=true writes it."
        state = f"present: {', '.join(there) or 'none'}" if self.folder.is_dir() else "there is no such folder"
        lines = [f"no subset {', '.join(missing) or 'at all'} under {self.folder} ({state}).{_guess(missing, there)}"]
        known = [subset for subset in missing if subset in ARCHIVES]
        if self.source != "sample":
            lines += [f"{subset}.tar.gz has {ARCHIVES[subset].size}: {self.url}/{subset}.tar.gz" for subset in known]
            lines.append(
                f"Unpack archives so that {self.folder / (known or ['dev-clean'])[0]} is there, set data.root=DIR, let "
                "data.source=download fetch them, or try data.source=sample."
            )
        return "\n".join(lines)

    # ---- download --------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        self._check_settings()
        wanted = self.subsets or ()
        unknown = [subset for subset in wanted if subset not in ARCHIVES]
        if unknown or not wanted:
            raise UserError(
                f"data.source=download data.subsets={self.subsets and list(self.subsets)}: choose from "
                + ", ".join(f"{subset} ({archive.size})" for subset, archive in ARCHIVES.items())
                + f".{_guess(unknown, [])}"
            )
        for subset in sorted(set(wanted)):
            if (self.folder / subset).is_dir():
                log.info("%s is there", self.folder / subset)
            else:
                self._fetch(subset)

    def _fetch(self, subset: str) -> None:
        """Fetch one subset; its folder appears when it is complete."""
        name = f"{subset}.tar.gz"
        archive, unpacked = self.folder / name, self.folder / f".{subset}.unpacked"
        archives.fetch(f"{self.url.rstrip('/')}/{name}", archive, ARCHIVES[subset].sha256)
        shutil.rmtree(unpacked, ignore_errors=True)
        archives.unpack(archive, unpacked)
        content = unpacked / _FOLDER
        if not (content / subset).is_dir():
            raise UserError(f"{archive} holds no folder {_FOLDER}/{subset}. Delete it, or choose another data.url.")
        for path in sorted(content.glob("*.TXT")):
            if not (self.folder / path.name).exists():
                path.replace(self.folder / path.name)
        (content / subset).replace(self.folder / subset)
        shutil.rmtree(unpacked)
        archive.unlink()


def _guess(names: Sequence[str], there: Sequence[str]) -> str:
    close = [difflib.get_close_matches(name, {*ARCHIVES, *there}, n=1, cutoff=0.6) for name in names]
    meant = [match[0] for name, match in zip(names, close, strict=True) if match and match[0] != name]
    return f" Did you mean {', '.join(meant)}?" if meant else ""


def _official(subset: str) -> str:
    split = _OFFICIAL.get(subset.partition("-")[0])
    if split is None:
        raise UserError(
            f"data.splits=official: the subset {subset} is neither train-..., dev-... nor test-...; use data.splits="
            "subset, speaker or utterance."
        )
    return split


def _lines(problems: Findings) -> list[str]:
    return [line for text, names in problems.items() for line in counted(text, names)]
