"""Measures of results: plain functions of audio, codes and numbers; what can't be measured says why."""
