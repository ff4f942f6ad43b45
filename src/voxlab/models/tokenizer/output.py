"""What a trainable network of the tokenizer family returns from its training pass."""

from dataclasses import dataclass

from torch import Tensor

from voxlab.models.tokenizer.quantizer import Quantized


@dataclass(frozen=True)
class Output:
    """Reconstruction beside its target.

    Attributes:
        target: what `output` should be: standardised log-mel (B, bins, F), audio (B, 1, N) padded to whole frames, or
            normalised motion (B, F, D).
        output: same shape.
        mask: (B, F) or (B, N) bool, True = valid; target and output are zero elsewhere.
        latents: (B, D, T) before the quantizer, zero past each item's end; None for a vocoder.
        quantized: what the quantizer returned; None for a vocoder.
    """

    target: Tensor
    output: Tensor
    mask: Tensor
    latents: Tensor | None = None
    quantized: Quantized | None = None
