"""Codecs: audio to codes and back. One protocol (`base.Codec`), one file per codec, chosen by `codec=<name>`."""
