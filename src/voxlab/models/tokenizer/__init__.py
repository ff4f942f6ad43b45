"""Networks of the trainable speech codecs: the quantizer, the mel and wave families, their vocoders."""
