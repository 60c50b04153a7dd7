"""The stages of the workflow: one file for each verb of a rule; a stage reads and writes files."""
