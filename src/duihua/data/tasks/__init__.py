"""Sets of questions that language models are measured on, read from one locked archive."""
