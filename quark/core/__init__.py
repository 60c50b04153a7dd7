"""Files, schemas, random streams, shards and progress, used by all other code; no torch."""
