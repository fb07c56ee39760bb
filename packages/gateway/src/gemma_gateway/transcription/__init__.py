"""Transcriptions and translations of audio."""
