"""VoiceAssistant-400K: questions and answers in Parquet files, the answers as SNAC tokens in text.

325 files, 470,054 rows, 219 GB, Apache-2.0 (gpt-omni/VoiceAssistant-400K). Any other folder of Parquet files with
a token, text or audio column is read as well: set the pattern and the column names.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from voxlab.data.embedded import list_cells
from voxlab.data.items import AudioItem
from voxlab.data.sample.voiceassistant import write_sample
from voxlab.errors import UserError
from voxlab.parquet import Source, open_source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadFile:
    """An input file that can't be converted, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class VoiceAssistant:
    """A folder of Parquet files whose rows hold tokens, text and audio of spoken answers.

    Args:
        source: "disk" reads `root`; "sample" writes a small synthetic corpus beside it (`<root>-sample`) and reads
            that; "download" fetches `repo_id` into `root` first.
        root: folder of the data set.
        pattern: which files below the root, sorted by name.
        num_files: only the first so many files.
        tokens_column: SNAC tokens as text, or any codec's codes as list<list<int>> (codebooks x frames).
        text_column: what the answer says.
        audio_column: struct<bytes, path> with a complete audio file in `bytes`, or the bytes alone.
        output_prefix: start of the new columns' names; by default the source column up to its last "_".
        layout: order of the tokens in the text, see `codecs.layouts`.
        repo_id: data set on the Hugging Face hub.
    """

    source: str = "disk"
    root: str = "data/VoiceAssistant-400K"
    pattern: str = "data/*.parquet"
    num_files: int | None = None
    tokens_column: str = "answer_snac"
    text_column: str = "answer"
    audio_column: str = "question_audio"
    output_prefix: str | None = None
    layout: str = "mini_omni"
    repo_id: str = "gpt-omni/VoiceAssistant-400K"

    @property
    def folder(self) -> Path:
        """The folder that is read: the root, or the sample beside it."""
        root = Path(self.root)
        return root.with_name(f"{root.name}-sample") if self.source == "sample" else root

    def prepare(self) -> None:
        """Write the sample or download the files, when asked to. To be called on one rank only.

        Raises:
            UserError: `source` is unknown, or the hub can't be reached.
        """
        if self.source == "sample":
            write_sample(self.folder)
            log.info("sample corpus: %s", self.folder)
        elif self.source == "download":
            _download(self.repo_id, self.folder, self.pattern, self.num_files)
        elif self.source != "disk":
            raise UserError(f"data.source={self.source}: choose disk, sample or download.")

    def paths(self) -> list[Path]:
        """Return the input files, sorted by name.

        Raises:
            UserError: there is none.
        """
        if self.num_files is not None and self.num_files < 1:
            raise UserError(f"data.num_files={self.num_files}: give 1 or more, or null for all files.")
        if not self.pattern or Path(self.pattern).is_absolute():
            raise UserError(f"data.pattern={self.pattern}: give a pattern below data.root, for example data/*.parquet.")
        found = sorted(path for path in self.folder.glob(self.pattern) if path.is_file())
        if not found and self.source == "sample":
            raise UserError(f"{self.folder} holds no sample corpus yet; a run without dry_run=true writes it.")
        if not found:
            raise UserError(
                f"no Parquet file matches {self.pattern} under {self.folder}; expected train-00000-of-00325.parquet "
                "and so on.\nSet data.root=DIR and data.pattern=GLOB to the files' (data.source=disk), let "
                f"data.source=download fetch {self.repo_id} (219 GB), or try data.source=sample."
            )
        return found[: self.num_files]

    def open(self, columns: Sequence[str]) -> tuple[list[Source], list[BadFile]]:
        """Read all footers and report every file that can't be used.

        Args:
            columns: names that a file must have.
        """
        good: list[Source] = []
        bad: list[BadFile] = []
        for path in self.paths():
            name = path.relative_to(self.folder).as_posix()
            try:
                source = open_source(path, self.folder)
            except (OSError, pa.ArrowInvalid) as error:
                bad.append(BadFile(name, f"unreadable Parquet file (truncated?): {error}"))
                continue
            missing = [column for column in columns if column not in source.schema.names]
            if missing:
                reason = f"column {', '.join(missing)} missing; found {source.schema.names}"
                bad.append(
                    BadFile(name, f"{reason} (data.tokens_column=, data.text_column=, data.audio_column= name it)")
                )
            else:
                good.append(source)
        return good, bad

    def items(self) -> list[AudioItem]:
        """Return the recordings of the audio column, sorted by id (`train-00000-of-00325/000012`), all in split train.

        Raises:
            UserError: no files, or some that can't be used; names them all.
        """
        sources, bad = self.open([self.audio_column])
        if bad:
            raise UserError(
                f"{len(bad)} files under {self.folder} can't be used:\n  "
                + "\n  ".join(f"{file.name}: {file.reason}" for file in bad)
            )
        return list_cells(sources, self.audio_column, self.pattern, skip=[self.tokens_column])

    def check(self) -> list[str]:
        """Report everything that is wrong with the files, at once: one line a finding."""
        _, bad = self.open([self.tokens_column, self.text_column, self.audio_column])
        return [f"{file.name}: {file.reason}" for file in bad]


def _download(repo_id: str, folder: Path, pattern: str, num_files: int | None) -> None:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, snapshot_download

    try:
        names = HfApi().list_repo_files(repo_id, repo_type="dataset")
        wanted = sorted(name for name in names if fnmatch(name, pattern))[:num_files]
        log.info("downloading %d files of %s into %s", len(wanted), repo_id, folder)
        snapshot_download(repo_id, repo_type="dataset", allow_patterns=wanted, local_dir=folder)
    except OSError as error:  # requests' and the hub's errors are OSErrors
        raise UserError(
            f"can't download {repo_id}: {type(error).__name__}: {error}\n"
            f"Check the network, or put the files under {folder} yourself and use data.source=disk."
        ) from error
