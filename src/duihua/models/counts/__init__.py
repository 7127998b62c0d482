"""Models that count: bags of words and n-grams, what language models were before they were networks."""
