"""The words of an audit: the types of findings, what can be expected of a tree, and what was found in it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Issue = tuple[str, str]  # type of finding, detail
Row = tuple[str, str, str, str]  # path of token file, of sidecar, type of finding, detail

# Every type of finding, and what it means.
TYPES = {
    "bad_ecdc": "the token file can't be read",
    "missing_sidecar": "a token file without values beside it",
    "bad_sidecar": "the values or their JSON can't be read",
    "missing_json": "values without their JSON: the columns have no names",
    "orphan_tokens": "a token file whose recording is gone",
    "orphan_sidecar": "a sidecar without its token file",
    "bad_shape": "values that are not (frames, columns)",
    "frame_mismatch": "codes, values and JSON have different numbers of frames",
    "stale_sidecar": "made from other codes than the token file holds now",
    "dtype_mismatch": "values of another type than expected, or than the JSON says",
    "fps_mismatch": "another frame rate than that of the codes, or none",
    "missing_names": "columns without names",
    "names_length_mismatch": "more or fewer names than columns",
    "duplicate_names": "two columns of one name",
    "missing_features": "a required column is missing",
    "nonfinite": "NaN or infinite values",
    "norm_invalid": "statistics that are missing or no numbers",
    "norm_length_mismatch": "more or fewer statistics than columns",
    "norm_inverted": "a least value above the greatest",
    "stats_mismatch": "statistics that are not those of the values",
    "range_below_min": "values below their declared range",
    "range_above_max": "values above their declared range",
    "range_unverifiable": "a range that can't be checked",
    "codes_out_of_range": "codes that the codebook does not have",
    "mixed_codecs": "codes of another codec or number of codebooks than most",
    "mixed_columns": "other columns than most sidecars have: training needs the same in all",
    "manifest_mismatch": "manifest.csv says other things than the files",
    "dataset_mismatch": "the built data set says other things than the files",
    "auditor_error": "the audit itself failed on this file",
}
# The first four stopped EncHF_Dataset's audit. A model would train on wrong numbers, or not at all, after the others.
FAIL_ON = (
    *("bad_ecdc", "bad_sidecar", "frame_mismatch", "missing_sidecar"),
    *("missing_json", "nonfinite", "stale_sidecar", "codes_out_of_range", "mixed_codecs", "dataset_mismatch"),
    *("mixed_columns", "orphan_tokens", "auditor_error"),
)


@dataclass(frozen=True)
class Expectation:
    """What the files of a tree have to be like.

    Attributes:
        frame_rate: Hz; None: each token file's own.
        dtype: "float16" or "float32"; None: either.
        required: names of columns that every sidecar must have.
        ranges: column -> (lowest, highest) value allowed, None for no limit; the column must be there.
        require_sidecars: every token file must have a sidecar; None: if any of them has one.
        codebook_size: entries per codebook; None: what the token file says.
    """

    frame_rate: float | None = None
    dtype: str | None = None
    required: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    require_sidecars: bool | None = None
    codebook_size: int | None = None


@dataclass(frozen=True)
class TokenFacts:
    """What a readable token file holds.

    Attributes:
        codec: its name.
        weights_id: of the codec; None where the file has no room for it.
        frames: T.
        num_codebooks: K.
        codebook_size: entries per codebook, as the file says.
        num_samples: of the recording.
        sample_rate: Hz.
        frame_rate: Hz.
        sha256: of the file, in hex.
    """

    codec: str
    weights_id: str | None
    frames: int
    num_codebooks: int
    codebook_size: int
    num_samples: int
    sample_rate: int
    frame_rate: float
    sha256: str


@dataclass(frozen=True)
class SidecarFacts:
    """What a readable sidecar holds.

    Attributes:
        frames: T.
        names: of its columns; None where the JSON does not name each of them once.
        statistics: (4, D) float64: least, greatest, mean, standard deviation; NaN for columns with such values.
        sample: (n, D) float32, some of the frames at equal distances.
        sha256: of the values' file and of the JSON ("" without one), in hex.
    """

    frames: int
    names: tuple[str, ...] | None
    statistics: np.ndarray
    sample: np.ndarray
    sha256: tuple[str, str]


@dataclass(frozen=True)
class AuditedFile:
    """One token file.

    Attributes:
        tokens: its path in the tree.
        sidecar: path of its sidecar's values in their tree, whether they are there or not.
        has_sidecar: they are there.
        codes: what it holds; None where it is broken.
        values: what the sidecar holds; None where it is broken or not there.
    """

    tokens: str
    sidecar: str
    has_sidecar: bool
    codes: TokenFacts | None
    values: SidecarFacts | None


@dataclass(frozen=True, order=True)
class Finding:
    """One fault.

    Attributes:
        tokens: path of the token file in its tree, "" where there is none.
        sidecar: path of the sidecar's values in their tree, also where they are missing; "" where none are expected.
        type: one of `TYPES`.
        detail: what was found and what was expected.
        severity: "error" or "warning".
    """

    tokens: str
    sidecar: str
    type: str
    detail: str
    severity: str


@dataclass(frozen=True)
class Audit:
    """All token files of a tree, and everything that is wrong with it, sorted by path.

    Attributes:
        files: the token files.
        findings: what is wrong.
        recordings: how many recordings there are that token files may be of; None: they were not looked at.
    """

    files: tuple[AuditedFile, ...]
    findings: tuple[Finding, ...]
    recordings: int | None = None

    @property
    def num_ok(self) -> int:
        """Token files without any finding."""
        bad = {finding.tokens for finding in self.findings}
        return sum(file.tokens not in bad for file in self.files)

    def count(self, severity: str) -> dict[str, int]:
        """Return type -> number of findings of this severity, the most frequent first."""
        found = Counter(finding.type for finding in self.findings if finding.severity == severity)
        return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
