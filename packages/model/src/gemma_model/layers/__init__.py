"""Building blocks of decoders that several model families share."""
