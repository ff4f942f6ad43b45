"""EnCodec weights from transformers' model into the `encodec` package's (CC BY-NC 4.0, an extra): its backend."""

from typing import Any


def to_package(model: Any) -> Any:
    """Rebuild a transformers EncodecModel as one of the `encodec` package: same tensors in the same order."""
    from encodec.model import EncodecModel
    from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
    from encodec.quantization.vq import ResidualVectorQuantizer

    config = model.config
    shape = {
        "channels": config.audio_channels,
        "dimension": config.hidden_size,
        "n_filters": config.num_filters,
        "ratios": config.upsampling_ratios,
        "norm": config.norm_type,
        "causal": config.use_causal_conv,
    }
    quantizer = ResidualVectorQuantizer(config.codebook_dim, config.num_quantizers, config.codebook_size)
    rest = (config.target_bandwidths, config.sampling_rate, config.audio_channels, config.normalize)
    package = EncodecModel(SEANetEncoder(**shape), SEANetDecoder(**shape), quantizer, *rest, config.chunk_length_s)
    for part in ("encoder", "decoder", "quantizer"):
        target = getattr(package, part)
        values = getattr(model, part).state_dict().values()
        target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))
    return package
