"""One training loop for every stage that follows a gradient."""
