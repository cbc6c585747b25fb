"""The command line: a module a verb; the only room that prints, and where errors become exit codes."""
