"""What every stage may import: rows, shards, batches, training, arguments, outputs, models, judge."""
