"""The command line: one file for each family of verbs, no logic, only wiring."""
