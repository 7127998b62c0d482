"""The parts of the report's page: each function takes the run and gives its HTML, or None where the run has nothing for it."""
