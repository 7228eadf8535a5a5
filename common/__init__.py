"""What every stage may import, beside rows.py, shards.py and training.py: arguments, outputs, models, judge."""
