"""One file for each verb of a rule: it reads files and writes files."""
