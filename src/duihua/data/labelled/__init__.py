"""Sources for classifiers: labelled texts, text pairs and multiple choice, and the text that is free of their tests."""
