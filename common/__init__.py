"""What every stage may import: rows, shards, training, arguments, outputs, models, judge."""
