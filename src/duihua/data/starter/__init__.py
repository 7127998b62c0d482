"""The starter data: one small class a source, reading its archive as it lies, with licence, language and counts."""
