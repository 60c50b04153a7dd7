"""Files, schemas, random streams, shards and progress: what everything else stands on; no torch."""
