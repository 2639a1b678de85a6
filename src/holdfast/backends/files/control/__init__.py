"""The control store on files: one SQLite database, many processes, one fair gate."""
